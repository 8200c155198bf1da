"""The way from a start that can be drawn from to p(x, z), for chains that go
along it, in either direction, and weigh themselves.
"""

import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.evaluation import hamiltonian
from vae_tf.evaluation.compiled import compiled
from vae_tf.noise import for_tfp, key, standard_normal, uniform
from vae_tf.vae import VAE

STARTS = ("encoder", "prior")
ROWS_AT_ONCE = 2048  # chains at once, images times chains of each
STEEPNESS = 4.0  # of the schedule: its ends are 14 times as slow as its middle
PILOT_CHAINS = 8  # that find the step sizes
ACCEPTANCE = 0.65  # to which they find them
RATE = 0.6  # by which the logarithm of a step size follows the acceptance


def schedule(num_steps: int) -> np.ndarray:
    """b_0 = 0 < b_1 < ... < b_T = 1, `[T + 1]`: the logistic function from -4
    to 4, rescaled.
    """
    logits = STEEPNESS * np.linspace(-1, 1, num_steps + 1)
    sigmoid = 1 / (1 + np.exp(-logits))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


class Path:
    """The way from r to p(x, z) of some images, with step sizes for it.

    Args:
      vae: a model.
      images: x `[B, H, W, C]`.
      num_steps, seed, start, first: see `annealed`.
    """

    def __init__(self, vae, images, num_steps, seed, start, first):
        self.vae, self.images, self.start = vae, images, start
        self.seed, self.first = seed, first
        self.schedule = schedule(num_steps)
        self.chunks = 0  # that chains were run in, each with draws of its own
        # What is right for a standard normal distribution, about.
        guess = np.full(
            (num_steps + 1, len(images)),
            vae.encoder.latent_dim**-0.25,
            np.float32,
        )
        pilots = min(PILOT_CHAINS, self._at_once())
        _, _, self.step_sizes = self._run(pilots, None, guess, RATE)

    def weights(
        self, num_chains: int, ends: tf.Tensor | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """log w `[B, K]` of chains, from r or, back, from `ends` `[B, D]`; and
        the share of accepted proposals `[B]`.
        """
        chunks = -(-num_chains // self._at_once())
        parts = [
            self._run(-(-num_chains // chunks), ends, self.step_sizes, 0.0)[:2]
            for _ in range(chunks)
        ]
        log_weights, acceptance = zip(*parts, strict=True)
        # Chunks are equal: what is beyond K, less than a chunk, is left out.
        return (
            np.concatenate(log_weights)[:num_chains].T,
            np.mean(acceptance, axis=0),
        )

    def _at_once(self) -> int:
        return max(1, ROWS_AT_ONCE // len(self.images))

    def _run(self, chains: int, ends, step_sizes, rate: float) -> list:
        # Number of the first image, below it that of the chunk, of the step.
        number = (self.first << 40) + (self.chunks << 24)
        self.chunks += 1
        path = self.schedule
        if ends is None:
            places = self._starts(chains, key("annealing", self.seed, number))
        else:
            path, step_sizes = path[::-1], step_sizes[::-1]
            places = tf.repeat(self._coordinates(ends)[tf.newaxis], chains, 0)
        log_weights, acceptance, used = compiled(self.vae, _chains)(
            self.images,
            self.start,
            places,
            tf.constant(path),
            tf.constant(step_sizes),
            tf.constant(rate),
            tf.constant([self.seed, number], tf.int64),
        )
        backwards = -1 if ends is not None else 1
        return [backwards * log_weights.numpy(), acceptance.numpy(), used]

    def _starts(self, chains: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws from r in the chains' coordinates `[K, B, D]`."""
        shape = (chains, len(self.images))
        if self.start == "encoder":
            return standard_normal((*shape, self.vae.encoder.latent_dim), seed)
        return self.vae.prior_distribution().sample(shape, seed=for_tfp(seed))

    def _coordinates(self, z: tf.Tensor) -> tf.Tensor:
        """Of z `[B, D]`."""
        if self.start == "encoder":
            return self.vae.encoder(self.images).bijector.inverse(z)
        return z


def _chains(
    vae: VAE,
    images: tf.Tensor,
    start: str,
    places: tf.Tensor,
    path: tf.Tensor,
    step_sizes: tf.Tensor,
    rate: tf.Tensor,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """sum_t (b_t - b_(t-1)) log w_(t-1) `[K, B]`, float64, of chains that start
    in `places` `[K, B, D]`; the share of accepted proposals `[B]`; and the step
    sizes that were taken `[T + 1, B]`, the first and last of which say nothing.

    Args:
      path: b_0 .. b_T, float64, in the order of the chains.
      step_sizes: `[T + 1, B]`, for each b of the path.
      rate: 0 to take them as they are; of pilots, `RATE`.
      seed: of the draws, and the number of the first of them.
    """
    log_densities = _log_densities(vae, images, start)
    chains, batch, _ = places.shape
    last = path.shape[0] - 1

    def gained(number, at):
        share = path[number] - path[number - 1]
        return share * tf.cast(at.log_weight, tf.float64)

    def advance(number, at, log_weights, accepted, change, used):
        log_weights += gained(number, at)
        step_size = step_sizes[number] * tf.exp(change)
        draw = seed[1] + tf.cast(number, tf.int64)
        at, now_accepted, probability = hamiltonian.step(
            log_densities,
            at,
            tf.cast(path[number], tf.float32),
            step_size,
            standard_normal(places.shape, key("annealing", seed[0], draw)),
            uniform((chains, batch), key("acceptance", seed[0], draw), 23),
        )
        change += rate * (tf.reduce_mean(probability, axis=0) - ACCEPTANCE)
        return (
            number + 1,
            at,
            log_weights,
            accepted + tf.reduce_mean(tf.cast(now_accepted, tf.float32), 0),
            change,
            tf.tensor_scatter_nd_update(used, [[number]], [step_size]),
        )

    number, at, log_weights, accepted, _, used = tf.while_loop(
        lambda number, *_: number < last,
        advance,
        (
            tf.constant(1),
            hamiltonian.point(log_densities, places),
            tf.zeros((chains, batch), tf.float64),
            tf.zeros(batch),
            tf.zeros(batch),
            step_sizes,
        ),
    )
    return log_weights + gained(number, at), accepted / (last - 1), used


def _log_densities(
    vae: VAE, images: tf.Tensor, start: str
) -> hamiltonian.LogDensities:
    """log r and log(p(x, z) / r(z)), in the coordinates of the start."""
    posterior, prior = vae.encoder(images), vae.prior_distribution()

    def log_likelihood(z):
        return vae.decoder(z).log_prob(images)

    def from_prior(z):
        return prior.log_prob(z), log_likelihood(z)

    def from_encoder(noise):
        draws = objectives.draw(posterior, prior, noise, log_likelihood)
        return posterior.distribution.log_prob(noise), draws.log_weights

    return from_prior if start == "prior" else from_encoder
