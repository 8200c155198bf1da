"""Richer posterior, prior and objective against the mean-field baseline, on
static MNIST: test log p(x) in nats per image, with paired errors.

python -m benchmarks.quality.static_mnist
"""

import dataclasses
import pathlib

from benchmarks.shared.commands import measured
from vae_tf import command_line
from vae_tf.evaluation.comparison import paired
from vae_tf.settings import Settings, setting

# Body, optimizer, schedule, epochs and seed are the same in every row.
TRAIN = "train.py --dataset binarized_mnist --latent_dim 40 --epochs 60"
ROWS = {
    "mean_field": "",
    "iaf": " --posterior iaf",
    "vamp": " --prior vamp --num_components 500",
    "iwae": " --objective iwae --num_samples 5",
}


@dataclasses.dataclass(frozen=True)
class StaticMNIST(Settings):
    runs_dir: str = setting(
        "runs/static_mnist", "one run per row; those that finished are kept"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def main(given):
    settings = StaticMNIST(**given)
    found_of = {
        name: measured(
            TRAIN + flags,
            "evaluate.py",
            pathlib.Path(settings.runs_dir) / name,
            settings.data_dir,
        )
        for name, flags in ROWS.items()
    }
    _, baseline = found_of["mean_field"]
    print("| flags | ELBO | log p(x) | gain over mean_field | gain / s.e. |")
    print("|---|---|---|---|---|")
    for name, (found, log_p) in found_of.items():
        gain, error = paired(log_p, baseline)
        print(
            f"| `{ROWS[name].strip() or 'the baseline'}` | {found['elbo']:.2f} "
            f"| {found['log_marginal_likelihood']:.2f} ± "
            f"{found['standard_error']:.2f} ",
            f"| {gain:.3f} ± {error:.3f} | {gain / error:.1f} |"
            if name != "mean_field"
            else "| | |",
            sep="",
        )
    print(
        f"\n{found['dataset']}, {found['split']} split, "
        f"{found['num_examples']} images, "
        f"K = {found['num_importance_samples']}, seed {found['seed']}, "
        f"{found['units']}; gains are paired, image by image"
    )


if __name__ == "__main__":
    command_line.run(StaticMNIST, main, __doc__)
