"""A training step of each family against the same one in PyTorch and JAX, in
turns on one machine, and its floor: the time of its matrix products.

python -m benchmarks.speed.families --peers_python peers_env/bin/python

784-400-256-40, batches of 128 of binarised MNIST, centred RMSprop; a VampPrior
of 500 pseudo-inputs, an inverse autoregressive flow of two steps of 320 units,
importance-weighted bounds of K draws. PyTorch is the faster of a loop over
images in memory and of the same with `torch.compile`, JAX whole passes in one
compiled scan."""

import dataclasses
import statistics
import sys
import tempfile

import numpy as np

import vae_tf
from benchmarks.shared.floor import PEAK_SIZE
from benchmarks.shared.stopwatch import in_turns, ratios, spread
from vae_tf import command_line
from vae_tf.settings import Settings, setting

BATCH, LATENT, HIDDEN, UNITS, PSEUDO_INPUTS = 128, 40, (400, 256), 320, 500
IMAGES = 100 * BATCH  # of a pass, which is a round
FAMILIES = {
    "mean_field": [],
    "vamp": ["--family", "vamp"],
    "iaf": ["--family", "iaf"],
    "iwae, K = 5": ["--samples", "5"],
    "iwae, K = 50": ["--samples", "50"],
}


@dataclasses.dataclass(frozen=True)
class Families(Settings):
    peers_python: str = setting(
        sys.executable, "a Python that can import torch, jax and optax"
    )
    rounds: int = setting(5, "turns of each contestant", minimum=1)
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def products(name: str) -> float:
    """Multiply-adds of a step's matrix products: each weight meets the rows
    that go through it forwards, in the gradient of its input, and in its own;
    the images of the data have no gradient.
    """
    first, second = HIDDEN
    body = first * second + second * 2 * LATENT
    decoder = LATENT * second + second * first + first * 784
    samples = int(name.split()[-1]) if "iwae" in name else 1
    total = BATCH * (2 * 784 * first + 3 * body + 3 * samples * decoder)
    if name == "vamp":
        total += 3 * PSEUDO_INPUTS * (784 * first + body)
    if name == "iaf":
        made = LATENT * UNITS + UNITS * 2 * LATENT + second * UNITS
        total += 2 * BATCH * 3 * (made + second * 2 * LATENT)
    return total


def main(given):
    settings = Families(**given)
    source = vae_tf.load_data(
        "binarized_mnist", data_dir=settings.data_dir
    ).source
    print(
        "| family | ours, ms | floor, ms at GFLOP/s | ours / floor "
        "| PyTorch, ms | PyTorch / ours | JAX, ms | JAX / ours |\n"
        + "|---" * 8
        + "|"
    )
    with tempfile.TemporaryDirectory() as directory:
        file = f"{directory}/images.npz"
        train = source.images["train"][:IMAGES]
        np.savez(file, **source.images | {"train": train})
        shape = ["--hidden", *map(str, HIDDEN), "--latent", str(LATENT)]
        shape += ["--batch", str(BATCH), "--images", file]
        for name, flags in FAMILIES.items():
            same = shape + flags
            squares, ours, torch, jax = (
                [python, "-m", f"benchmarks.{module}"]
                for python, module in (
                    (sys.executable, "shared.floor"),
                    (sys.executable, "speed.ours"),
                    (settings.peers_python, "peers.torch_vae"),
                    (settings.peers_python, "peers.jax_vae"),
                )
            )
            times = in_turns(
                {
                    "products": squares,
                    "ours": ours + same,
                    "eager": torch + same,
                    "compiled": [*torch, *same, "--compile"],
                    "jax": jax + same,
                },
                settings.rounds,
            )
            times["torch"] = min(
                times["eager"], times["compiled"], key=statistics.median
            )
            peak = 2 * PEAK_SIZE**3 / 1e6 / min(times["products"])
            floor = 2 * products(name) / 1e6 / peak
            middle = {who: statistics.median(t) for who, t in times.items()}
            print(
                f"| {name} | {middle['ours']:.2f} | {floor:.2f} at {peak:.0f} "
                f"| {middle['ours'] / floor:.2f} "
                + "".join(
                    f"| {middle[who]:.2f} "
                    f"| {spread(ratios(times[who], times['ours']))} "
                    for who in ("torch", "jax")
                )
                + "|",
                flush=True,
            )


if __name__ == "__main__":
    command_line.run(Families, main, __doc__)
