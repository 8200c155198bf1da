"""Training steps against PyTorch, JAX, plain Keras and the matrix products
alone, in turns on one machine: float32, and at the end of a row our own mixed
precision beside the machine's rate of bfloat16 products.

python -m benchmarks.speed.training --peers_python peers_env/bin/python

PyTorch and JAX are needed for this alone, in any environment (pip install torch
jax optax numpy). PyTorch is the best of a loop over images in memory, of the
same with `torch.compile`, and of its `DataLoader`. Every contestant trains the
same model on the same images of binarised MNIST in the same batches with
centred RMSprop. Ratios are those of one round; the table shows their median,
and the smallest and largest."""

import dataclasses
import statistics
import sys
import tempfile

import numpy as np

import vae_tf
from benchmarks.shared.floor import PEAK_SIZE, products_of
from benchmarks.shared.stopwatch import in_turns, ratios, spread
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
    peers_python: str = setting(
        sys.executable, "a Python that can import torch, jax and optax"
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
    products, ours, plain, torch, jax = (
        [python, "-m", f"benchmarks.{name}"]
        for python, name in (
            (sys.executable, "shared.floor"),
            (sys.executable, "speed.ours"),
            (sys.executable, "peers.keras_vae"),
            (settings.peers_python, "peers.torch_vae"),
            (settings.peers_python, "peers.jax_vae"),
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
        "compiled": [*torch, *shape, "--compile"],
        "loader": [*torch, *shape, "--feed", "loader"],
    }
    if network == "mlp":
        commands |= {"plain": [*plain, *shape], "jax": [*jax, *shape]}
    return in_turns(commands, settings.rounds)


def show(row: tuple, times: dict[str, list]) -> None:
    network, hidden, latent, batch, _ = row
    widths = "-".join(map(str, (784, *hidden, latent)))
    name = widths if network == "mlp" else f"conv, {latent} latents"
    torch = min(
        (times[name] for name in ("memory", "compiled", "loader")),
        key=statistics.median,
    )
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
        *(
            f" {middle[name]:.2f} "
            f"| {spread(ratios(times[name], times['ours']))} |"
            if name in times
            else " | |"
            for name in ("jax", "plain")
        ),
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
        "| JAX, ms | JAX / ours | plain Keras, ms | Keras / ours "
        "| floor, ms at GFLOP/s | ours / floor | bfloat16: ours, ms "
        "| floor, ms at GFLOP/s | ours / floor |\n" + "|---" * 14 + "|"
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
