"""Richer posterior, prior and objective against the mean-field baseline, on
static MNIST: test log p(x) in nats per image, with paired errors.

python -m benchmarks.quality.static_mnist
"""

import dataclasses
import json
import math
import pathlib

import numpy as np

from benchmarks.shared.commands import run
from vae_tf import command_line
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


def measure(name: str, settings: StaticMNIST) -> tuple[dict, np.ndarray]:
    """The test figures of a row, and log p(x) of each image `[B]`, in nats;
    trained and evaluated where that has not been done.
    """
    run_dir = pathlib.Path(settings.runs_dir) / name
    place = ["--run_dir", str(run_dir)]
    if settings.data_dir:
        place += ["--data_dir", settings.data_dir]
    if not (run_dir / "evaluation-test.json").exists():
        begun = ["--resume"] if (run_dir / "config.json").exists() else []
        run(TRAIN + ROWS[name], *place, *begun)
        run("evaluate.py", *place)
    found = json.loads((run_dir / "evaluation-test.json").read_text())
    with np.load(run_dir / "evaluation-test.npz") as file:
        return found, file["log_marginal_likelihood"]


def main(given):
    settings = StaticMNIST(**given)
    measured = {name: measure(name, settings) for name in ROWS}
    _, baseline = measured["mean_field"]
    print("| flags | ELBO | log p(x) | gain over mean_field | gain / s.e. |")
    print("|---|---|---|---|---|")
    for name, (found, log_p) in measured.items():
        # Paired: images differ far more from each other than models do.
        gain = log_p - baseline
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        print(
            f"| `{ROWS[name].strip() or 'the baseline'}` | {found['elbo']:.2f} "
            f"| {found['log_marginal_likelihood']:.2f} ± "
            f"{found['standard_error']:.2f} ",
            f"| {gain.mean():.3f} ± {error:.3f} | {gain.mean() / error:.1f} |"
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
