"""The floor of a training step: its matrix products, and the rate at which this
machine multiplies matrices. As a program, a contestant that does nothing else.
"""

import argparse
import time

import tensorflow as tf

from benchmarks.shared.stopwatch import serve

PEAK_SIZE = 2048  # of the matrices that the machine's rate is measured with


def products(dtype="float32", repetitions=10):
    """A round of square matrix products."""
    matrix = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), dtype)
    product = tf.function(tf.matmul)

    def play():
        for _ in range(repetitions):
            result = product(matrix, matrix)
        result.numpy()
        return repetitions

    return play


def gigaflops(rounds=5) -> float:
    """The best rate of float32 matrix products of some rounds, in GFLOP/s."""
    play, rates = products(), []
    for _ in range(rounds):
        start = time.perf_counter()
        count = play()
        seconds = (time.perf_counter() - start) / count
        rates.append(2 * PEAK_SIZE**3 / seconds / 1e9)
    return max(rates)


def products_of(network: str, hidden: tuple, latent: int) -> int:
    """Multiply-adds of a step for one image: each weight meets every pixel or
    row of its output once forwards, once for the gradient of its input (but for
    the image's, which nobody asks for) and once for its own.
    """
    if network == "mlp":
        widths = [784, *hidden]
        layers = [
            *zip(widths, widths[1:], strict=False),
            (hidden[-1], 2 * latent),
            (latent, hidden[-1]),
            *zip(widths[:0:-1], widths[-2::-1], strict=False),
        ]
        sizes = [rows * columns for rows, columns in layers]
    else:
        # Pixels of the output times taps, channels in and channels out. What
        # follows a doubled image needs 4 taps a pixel (`UpConvolution`).
        sizes = [
            196 * 9 * 1 * 32,
            *2 * [196 * 9 * 32 * 32],
            49 * 9 * 32 * 64,
            *4 * [49 * 9 * 64 * 64],
            49 * 64 * 2 * latent,
            latent * 49 * 64,
            196 * 4 * 64 * 32,
            *2 * [196 * 9 * 32 * 32],
            784 * 4 * 32 * 16,
            784 * 16,
        ]
    return 3 * sum(sizes) - sizes[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    serve(products(parser.parse_args().dtype))
