"""Seconds of training until test log p(x) on static MNIST is -97.10 nats, which
the tutorial's own repository reports (K = 128): ours against PyTorch with that
repository's settings.

python -m benchmarks.speed.time_to_quality --torch_python torch_env/bin/python

Ours is one run of train.py, whose seconds are all that `fit` takes, XLA's
compilation and the passes over the validation images included. PyTorch's are
those of its steps alone, looked at every 2500 steps."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import vae_tf
from benchmarks.shared.commands import ROOT, run
from vae_tf import command_line
from vae_tf.runs.directory import read_metrics
from vae_tf.settings import Settings, setting

TARGET = -97.10  # nats
SAMPLES = 128  # K
TRAIN = (
    "train.py --dataset binarized_mnist --latent_dim 40 --figures_every 0 "
    "--notensorboard --batch_size 64 --hidden_units 300 --hidden_units 300"
)
# Of the repository: two hidden layers of 256, 128 latents, batches of 128,
# centred RMSprop at 0.001, 65,000 steps.
PUBLISHED = "--hidden 256 256 --latent 128 --batch 128"
LOOK = 2500  # steps


@dataclasses.dataclass(frozen=True)
class TimeToQuality(Settings):
    epochs: int = setting(8, "of our run", minimum=1)
    torch_python: str = setting(
        sys.executable, "a Python that can import torch"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def ours(directory: str, settings: TimeToQuality) -> tuple[float, float]:
    """Seconds of training, and test log p(x) in nats."""
    place = ["--run_dir", f"{directory}/run"]
    if settings.data_dir:
        place += ["--data_dir", settings.data_dir]
    run(TRAIN, "--epochs", str(settings.epochs), *place)
    run("evaluate.py", "--num_importance_samples", str(SAMPLES), *place)
    with open(f"{directory}/run/evaluation-test.json") as file:
        found = json.load(file)
    seconds = read_metrics(pathlib.Path(directory) / "run")[-1]["seconds"]
    return seconds, found["log_marginal_likelihood"]


def pytorch(directory: str, settings: TimeToQuality) -> tuple[float, float]:
    """The same, of the first look at which the target is reached."""
    source = vae_tf.load_data(
        "binarized_mnist", data_dir=settings.data_dir
    ).source
    images = f"{directory}/images.npz"
    np.savez(images, **source.images)
    command = [settings.torch_python, "-m", "benchmarks.peers.torch_vae"]
    command += [*PUBLISHED.split(), "--images", images]
    command += ["--steps", str(LOOK), "--reach", str(TARGET)]
    command += ["--num_samples", str(SAMPLES)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    for line in process.stdout:
        steps, seconds, log_p = map(float, line.split())
        print(f"PyTorch: {steps:.0f} steps, {seconds:.0f} s, {log_p:.2f}")
        sys.stdout.flush()
    if process.wait():
        sys.exit(process.returncode)
    return seconds, log_p


def main(given):
    settings = TimeToQuality(**given)
    rows = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, contestant in (("ours", ours), ("PyTorch", pytorch)):
            rows[name] = contestant(directory, settings)
            if rows[name][1] < TARGET:
                print(f"{name}: did not reach {TARGET} nats")
    print("| | s | test log p(x), nats |\n|---|---|---|")
    for name, (seconds, log_p) in rows.items():
        print(f"| {name} | {seconds:.1f} | {log_p:.2f} |")
    ratio = rows["PyTorch"][0] / rows["ours"][0]
    print(
        f"\nPyTorch takes {ratio:.1f} times as long; K = {SAMPLES}, "
        f"{os.cpu_count()} cores"
    )


if __name__ == "__main__":
    command_line.run(TimeToQuality, main, __doc__)
