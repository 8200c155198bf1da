"""What an epoch costs as the data and the model grow: synthetic images of 28x28
pixels, in memory and streamed from a file, and networks of growing width.

python benchmarks/growth.py

Memory is the peak of this process so far, so the streamed images come first,
the fewest before the most: what does not grow stays flat."""

import dataclasses
import pathlib
import resource
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from train_speed import products_of

import vae_tf
from vae_tf import command_line
from vae_tf.config import Settings, setting
from vae_tf.data import Data
from vae_tf.splits import Source
from vae_tf.training import steps_per_execution

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


def in_file(path: pathlib.Path, count: int) -> tf.data.Dataset:
    """The first images of a file of them, read anew at each pass."""
    records = tf.data.FixedLengthRecordDataset(str(path), PIXELS).take(count)
    images = records.map(
        lambda record: tf.reshape(tf.io.decode_raw(record, tf.uint8), SHAPE),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return images.apply(tf.data.experimental.assert_cardinality(count))


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


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(given):
    settings = Growth(**given)
    most = max(settings.examples)
    print(
        "| images | where | s per epoch | us per image | peak memory, MB |\n"
        "|---|---|---|---|---|"
    )

    def show(where, count, train):
        seconds, _ = seconds_per_epoch(data_of(train, settings.batch_size))
        print(
            f"| {count:,} | {where} | {seconds:.2f} | "
            f"{1e6 * seconds / count:.1f} | {peak_megabytes():.0f} |",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "images"
        with open(path, "wb") as file:
            part = bits(10_000)
            for first in range(0, most, len(part)):
                file.write(part[: most - first].tobytes())
        for count in sorted(settings.examples):
            show("streamed", count, in_file(path, count))
        for count in sorted(settings.examples):
            show(
                "memory",
                count,
                np.fromfile(path, np.uint8, count * PIXELS).reshape(-1, *SHAPE),
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
    command_line.run(Growth, main)
