"""The rate-distortion curve of a model over beta, the weight of its KL
divergence in training: test nats per image, and what the rate is made of.

python -m benchmarks.quality.rate_distortion

At beta = 1 the model is trained on the ELBO itself, and -ELBO = distortion +
rate is at its least (Alemi et al. 2018, arXiv:1711.00464)."""

import dataclasses
import pathlib

from benchmarks.shared.commands import measured
from vae_tf import command_line
from vae_tf.settings import Settings, setting

BETAS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class RateDistortion(Settings):
    dataset: str = setting(
        "digits", "of train.py, such as digits or binarized_mnist"
    )
    latent_dim: int = setting(10, "D", minimum=1)
    epochs: int = setting(100, "of each training", minimum=1)
    runs_dir: str = setting(
        "runs/rate_distortion", "one run per row; those that finished are kept"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def main(given):
    settings = RateDistortion(**given)
    train = (
        f"train.py --dataset {settings.dataset} --figures_every 0 "
        f"--latent_dim {settings.latent_dim} --epochs {settings.epochs}"
    )
    print(
        "| beta | rate | distortion | ELBO | mutual information | marginal KL "
        "| active units | log p(x) |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for beta in BETAS:
        name = (
            f"{settings.dataset}-{settings.latent_dim}-{settings.epochs}-{beta}"
        )
        found, _ = measured(
            f"{train} --beta {beta}",
            "evaluate.py",
            pathlib.Path(settings.runs_dir) / name,
            settings.data_dir,
        )
        parts = found["decomposition"]
        error = parts["standard_error"]
        print(
            f"| {beta} | {parts['rate']:.2f} ± {error['rate']:.2f} "
            f"| {parts['distortion']:.2f} ± {error['distortion']:.2f} "
            f"| {parts['elbo']:.2f} | {parts['mutual_information']:.2f} "
            f"| {parts['marginal_kl']:.2f} "
            f"| {parts['active_units']} of {settings.latent_dim} "
            f"| {found['log_marginal_likelihood']:.2f} ± "
            f"{found['standard_error']:.2f} |",
            flush=True,
        )
    print(
        f"\n{found['dataset']}, {found['split']} split, the first "
        f"{parts['num_examples']} images (log p(x): {found['num_examples']}, K "
        f"= {found['num_importance_samples']}), seed {found['seed']}, "
        f"{found['units']}; mutual information is at most "
        f"{parts['max_mutual_information']:.2f}"
    )


if __name__ == "__main__":
    command_line.run(RateDistortion, main, __doc__)
