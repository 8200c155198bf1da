"""What an epoch costs as the data and the model grow: synthetic images of 28x28
pixels, in memory and on disk, and networks of growing width.

python -m benchmarks.speed.growth

Memory is the peak of a process that trains on those images alone."""

import dataclasses
import multiprocessing
import pathlib
import resource
import tempfile
import time

import keras
import numpy as np

import vae_tf
from benchmarks.shared.floor import products_of
from vae_tf import command_line
from vae_tf.data.disk_images import DiskImages
from vae_tf.data.pipeline import Data
from vae_tf.data.splits import Source
from vae_tf.runs.training import steps_per_execution
from vae_tf.settings import Settings, setting

SHAPE = (28, 28, 1)
PIXELS = 28 * 28
HELD_OUT = 1000  # images of validation and of test
LATENT = 32


@dataclasses.dataclass(frozen=True)
class Growth(Settings):
    examples: tuple[int, ...] = setting(
        (10_000, 100_000, 1_000_000), "training images"
    )
    widths: tuple[int, ...] = setting(
        (128, 256, 512, 1024, 2048), "of both hidden layers"
    )
    batch_size: int = setting(256, "images per step", minimum=1)


def bits(count: int) -> np.ndarray:
    """Images [count, 28, 28, 1] of random bits."""
    words = np.random.default_rng(0).bytes(count * PIXELS // 8)
    return np.unpackbits(np.frombuffer(words, np.uint8)).reshape(-1, *SHAPE)


def data_of(train, batch_size: int) -> Data:
    held_out = bits(HELD_OUT)
    images = {"train": train, "validation": held_out, "test": held_out}
    labels = dict.fromkeys(images)
    return Data(
        Source("bits", "random bits", 2, images, labels), "none", batch_size, 0
    )


def seconds_per_epoch(data: Data, width: int = 256) -> tuple[float, int]:
    """Of the second epoch, which compiles nothing; and the weights of the
    model."""
    keras.utils.set_random_seed(0)
    vae = vae_tf.VAE(
        vae_tf.Encoder(LATENT, hidden_units=(width, width)),
        vae_tf.Decoder(SHAPE, hidden_units=(width, width)),
    )
    vae.compile("adam", steps_per_execution=steps_per_execution(data))
    begins = []
    begin = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: begins.append(time.perf_counter()),
        on_train_end=lambda *_: begins.append(time.perf_counter()),
    )
    vae.fit(data.train, epochs=2, verbose=0, callbacks=[begin])
    return begins[2] - begins[1], vae.count_params()


def epoch_of(
    path: pathlib.Path, count: int, where: str, batch_size: int
) -> tuple[float, float]:
    """Seconds per epoch on the first images of a file, and the peak memory of
    this process in MB."""
    images = DiskImages(path, SHAPE, range(count))
    train = images[:] if where == "memory" else images
    seconds, _ = seconds_per_epoch(data_of(train, batch_size))
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(given):
    settings = Growth(**given)
    print(
        "| images | where | s per epoch | us per image | peak memory, MB |\n"
        "|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "images"
        with open(path, "wb") as file:
            most, part = max(settings.examples), bits(10_000)
            for first in range(0, most, len(part)):
                file.write(part[: most - first].tobytes())
        alone = multiprocessing.get_context("spawn")
        for where in ("disk", "memory"):
            for count in settings.examples:
                with alone.Pool(1) as pool:
                    seconds, memory = pool.apply(
                        epoch_of, (path, count, where, settings.batch_size)
                    )
                print(
                    f"| {count:,} | {where} | {seconds:.2f} | "
                    f"{1e6 * seconds / count:.1f} | {memory:.0f} |",
                    flush=True,
                )
    print(
        "\n| hidden layers | million weights | us per image "
        "| us per image and million weights | GFLOP/s of products |\n"
        "|---|---|---|---|---|"
    )
    data = data_of(bits(20_000), settings.batch_size)
    for width in settings.widths:
        seconds, weights = seconds_per_epoch(data, width)
        each = 1e6 * seconds / 20_000
        rate = 2 * products_of("mlp", (width, width), LATENT) / each / 1e3
        print(
            f"| {width}, {width} | {weights / 1e6:.2f} | {each:.1f} | "
            f"{1e6 * each / weights:.1f} | {rate:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    command_line.run(Growth, main, __doc__)
