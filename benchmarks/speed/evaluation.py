"""Speed and memory of log p(x) with K = 5000 importance samples, against the
machine's own float32 matrix products, in turns.

python -m benchmarks.speed.evaluation

Each image has draws of its own. The share is that of the network's products,
which the estimate cannot do without, at the rate measured beside it."""

import dataclasses
import resource
import statistics
import time

import keras
import numpy as np

import vae_tf
from benchmarks.shared.floor import PEAK_SIZE, products
from vae_tf import command_line
from vae_tf.settings import Settings, setting

PRODUCTS = 10  # in a turn


@dataclasses.dataclass(frozen=True)
class EvaluateSpeed(Settings):
    num_images: int = setting(128, "of random bits, 28x28", minimum=1)
    num_importance_samples: int = setting(5000, "K", minimum=1)
    latent_dim: int = setting(40, "D", minimum=1)
    hidden_units: tuple[int, ...] = setting(
        (400, 256), "of the encoder; the decoder mirrors them", minimum=1
    )
    rounds: int = setting(5, "turns", minimum=1)


def seconds(play) -> float:
    start = time.perf_counter()
    play()
    return time.perf_counter() - start


def main(given):
    settings = EvaluateSpeed(**given)
    keras.utils.set_random_seed(0)
    hidden, latent = settings.hidden_units, settings.latent_dim
    vae = vae_tf.VAE(
        vae_tf.Encoder(latent, hidden_units=hidden),
        vae_tf.Decoder((28, 28, 1), hidden_units=hidden[::-1]),
    )
    count, samples = settings.num_images, settings.num_importance_samples
    images = np.random.default_rng(0).integers(0, 2, (count, 28, 28, 1))
    images = images.astype(np.float32)

    def estimate(num_samples=samples):
        vae_tf.log_marginal_likelihood(vae, images, num_samples, seed=1)

    widths = (latent, *hidden[::-1], 784)
    layers = zip(widths, widths[1:], strict=False)
    decoder = 2 * sum(rows * columns for rows, columns in layers)
    operations = decoder * samples * count
    multiply = products(repetitions=PRODUCTS)
    multiply()
    estimate()  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("| s | million draws/s | GFLOP/s | peak GFLOP/s | share of peak |")
    print("|---|---|---|---|---|")
    shares = []
    for _ in range(settings.rounds):
        times = [seconds(play) for play in (multiply, estimate, multiply)]
        took = times[1]
        peak = 2 * PEAK_SIZE**3 * PRODUCTS / min(times[0], times[2])
        shares.append(operations / took / peak)
        print(
            f"| {took:.2f} | {samples * count / took / 1e6:.3f} "
            f"| {operations / took / 1e9:.0f} | {peak / 1e9:.0f} "
            f"| {shares[-1]:.1%} |",
            flush=True,
        )
    estimate(4 * samples)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\nmedian {statistics.median(shares):.1%}; {count} images, K = "
        f"{samples}; memory at most {after / 1024:.0f} MB, of which "
        f"{(after - before) / 1024:.0f} MB for four times the draws"
    )


if __name__ == "__main__":
    command_line.run(EvaluateSpeed, main, __doc__)
