"""Every posterior and prior at its defaults, on static MNIST: test log p(x) in
nats per image, with paired differences from mean_field with standard_normal.

python -m benchmarks.quality.defaults
"""

import dataclasses
import itertools
import pathlib

import numpy as np

from benchmarks.shared.commands import measured
from vae_tf import command_line
from vae_tf.config import POSTERIORS, PRIORS
from vae_tf.evaluation.comparison import paired
from vae_tf.settings import Settings, setting

TRAIN = "train.py --dataset binarized_mnist --latent_dim 40 --figures_every 0"
BASELINE = ("mean_field", "standard_normal")
LEFT_OUT = {
    ("iaf", "vamp"),  # Refused: log q at a z of another origin takes D passes.
}
EPOCHS, SAMPLES = 20, 500  # K of the evaluation


@dataclasses.dataclass(frozen=True)
class Defaults(Settings):
    runs_dir: str = setting(
        "runs/defaults", "one run per row; those that finished are kept"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def measure(
    posterior: str, prior: str, settings: Defaults
) -> tuple[dict, np.ndarray]:
    """`measured` of a row."""
    return measured(
        f"{TRAIN} --epochs {EPOCHS} --posterior {posterior} --prior {prior}",
        f"evaluate.py --num_importance_samples {SAMPLES}",
        pathlib.Path(settings.runs_dir) / f"{posterior}-{prior}",
        settings.data_dir,
    )


def main(given):
    settings = Defaults(**given)
    families = [
        pair
        for pair in itertools.product(POSTERIORS, PRIORS)
        if pair not in LEFT_OUT
    ]
    _, baseline = measure(*BASELINE, settings)
    print("| posterior | prior | ELBO | log p(x) | gain | gain / s.e. |")
    print("|---|---|---|---|---|---|", flush=True)
    for posterior, prior in families:
        found, log_p = measure(posterior, prior, settings)
        gain, error = paired(log_p, baseline)
        print(
            f"| {posterior} | {prior} | {found['elbo']:.2f} "
            f"| {found['log_marginal_likelihood']:.2f} ± "
            f"{found['standard_error']:.2f} ",
            f"| {gain:.2f} ± {error:.2f} | {gain / error:.1f} |"
            if (posterior, prior) != BASELINE
            else "| | |",
            sep="",
            flush=True,
        )
    print(
        f"\n{found['dataset']}, {found['split']} split, {EPOCHS} epochs, "
        f"K = {SAMPLES}, "
        f"{found['num_examples']} images, seed {found['seed']}, "
        f"{found['units']}; gains are paired, image by image"
    )


if __name__ == "__main__":
    command_line.run(Defaults, main, __doc__)
