"""Training steps against PyTorch, plain Keras and the matrix products alone, in
turns on one machine: float32, and at the end of a row our own mixed precision
beside the machine's rate of bfloat16 products.

python -m benchmarks.speed.training --torch_python torch_env/bin/python

PyTorch is needed for this alone, in any environment (pip install torch numpy).
Every contestant trains the same model on the same images of binarised MNIST in
the same batches with centred RMSprop. Ratios are those of one round; the table
shows their median, and the smallest and largest."""

import dataclasses
import os
import statistics
import sys
import tempfile

import numpy as np

import vae_tf
from benchmarks.shared.commands import ROOT
from benchmarks.shared.floor import PEAK_SIZE, products_of
from benchmarks.shared.stopwatch import Contestant
from vae_tf import command_line
from vae_tf.settings import Settings, UserError, setting

# Network, hidden units, latent dimension, batch; images of a pass, which is a
# round (None: all 50,000).
ROWS = (
    ("mlp", (256, 256), 128, 32, None),
    ("mlp", (256, 256), 128, 128, None),
    ("mlp", (256, 256), 128, 512, None),
    ("mlp", (256, 256), 128, 4096, None),
    ("mlp", (512, 256), 2, 128, None),
    ("conv", (), 32, 128, 32 * 128),
)


@dataclasses.dataclass(frozen=True)
class TrainSpeed(Settings):
    torch_python: str = setting(
        sys.executable, "a Python that can import torch"
    )
    rounds: int = setting(7, "turns of each contestant", minimum=1)
    rows: tuple[int, ...] | None = setting(None, "of the table; unset: all")
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def race(row: tuple, images: str, settings: TrainSpeed) -> dict[str, list]:
    """Milliseconds per step of each contestant, round by round, on the images
    of a file.
    """
    network, hidden, latent, batch, _ = row
    shape = ["--network", network, "--hidden", *map(str, hidden)]
    shape += ["--latent", str(latent), "--batch", str(batch)]
    shape += ["--images", images]
    products, ours, plain, torch = (
        [python, "-m", f"benchmarks.{name}"]
        for python, name in (
            (sys.executable, "shared.floor"),
            (sys.executable, "speed.ours"),
            (sys.executable, "peers.keras_vae"),
            (settings.torch_python, "peers.torch_vae"),
        )
    )
    ours += shape
    bfloat16 = ["--dtype", "bfloat16"]
    commands = {
        "products": products,
        "ours": ours,
        "bfloat16 products": [*products, *bfloat16],
        "ours, bfloat16": [*ours, *bfloat16],
        "memory": [*torch, *shape],
        "loader": [*torch, *shape, "--feed", "loader"],
    }
    if network == "mlp":
        commands["plain"] = [*plain, *shape]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    contestants = {
        name: Contestant(*command, env=environment)
        for name, command in commands.items()
    }
    times = {name: [] for name in contestants}
    for _ in range(settings.rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant.milliseconds())
    for contestant in contestants.values():
        contestant.leave()
    return times


def spread(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"


def ratios(times: list[float], ours: list[float]) -> list[float]:
    return [one / two for one, two in zip(times, ours, strict=True)]


def show(row: tuple, times: dict[str, list]) -> None:
    network, hidden, latent, batch, _ = row
    widths = "-".join(map(str, (784, *hidden, latent)))
    name = widths if network == "mlp" else f"conv, {latent} latents"
    torch = min(
        (times["memory"], times["loader"]), key=statistics.median
    )  # the better of the two
    middle = {key: statistics.median(value) for key, value in times.items()}

    def beside_floor(ours, products):
        # GFLOP/s: floating-point operations per millisecond, over 10^6.
        peak = 2 * PEAK_SIZE**3 / 1e6 / min(times[products])
        floor = 2 * batch * products_of(network, hidden, latent) / 1e6 / peak
        return f"{floor:.2f} at {peak:.0f} | {middle[ours] / floor:.2f} |"

    print(
        f"| {name} | {batch} | {middle['ours']:.2f} "
        f"| {statistics.median(torch):.2f} "
        f"| {spread(ratios(torch, times['ours']))} |",
        f" {middle['plain']:.2f} "
        f"| {spread(ratios(times['plain'], times['ours']))} |"
        if "plain" in times
        else " | |",
        f" {beside_floor('ours', 'products')}",
        f" {middle['ours, bfloat16']:.2f} | ",
        beside_floor("ours, bfloat16", "bfloat16 products"),
        sep="",
        flush=True,
    )


def main(given):
    settings = TrainSpeed(**given)
    rows = range(len(ROWS)) if settings.rows is None else settings.rows
    for row in rows:
        if not 0 <= row < len(ROWS):
            raise UserError(
                f"--rows: expected numbers from 0 to {len(ROWS) - 1}, received "
                f"{row}."
            )
    source = vae_tf.load_data(
        "binarized_mnist", data_dir=settings.data_dir
    ).source
    print(
        "| model | batch | ours, ms | PyTorch, ms | PyTorch / ours "
        "| plain Keras, ms | Keras / ours | floor, ms at GFLOP/s "
        "| ours / floor | bfloat16: ours, ms | floor, ms at GFLOP/s "
        "| ours / floor |\n" + "|---" * 12 + "|"
    )
    with tempfile.TemporaryDirectory() as directory:
        file = f"{directory}/images.npz"
        for row in rows:
            *_, count = ROWS[row]
            train = source.images["train"][:count]
            np.savez(file, **source.images | {"train": train})
            show(ROWS[row], race(ROWS[row], file, settings))


if __name__ == "__main__":
    command_line.run(TrainSpeed, main, __doc__)
