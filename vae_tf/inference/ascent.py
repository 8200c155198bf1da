"""Stochastic gradient ascent on the ELBO of many images at once, each over
parameters of its own, in steps that suit it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.evaluation.compiled import compiled
from vae_tf.inference.families import FAMILIES, Parameters
from vae_tf.inference.weights import AT_ONCE, cut
from vae_tf.noise import key, stratified_normal
from vae_tf.vae import VAE

# Step size, in standard deviations, and steps of a round, by turns.
TURNS = ((0.1, 50), (0.03, 50), (0.01, 200))
PAIRS = 2  # of draws +epsilon, -epsilon, in each step
BLOCK = 50  # steps whose draws are stratified together
COMMON = 256  # draws by which an image's rounds are compared
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-8  # of Adam


def maximised(
    vae: VAE,
    images: tf.Tensor,
    family: str,
    parameters: Parameters,
    tolerance: float,
    max_steps: int,
    seed: int,
    finished: Callable[[int], None],
) -> tuple[Parameters, np.ndarray, np.ndarray]:
    """Parameters of each image's best round, arrays `[N, ...]`; how many steps
    it took; and whether it converged. See `local.infer` for how.

    `finished` is told of how many images in each round.
    """
    images, count = images.numpy(), images.shape[0]
    best = tf.nest.map_structure(np.array, parameters)
    elbo, taken = np.full(count, -np.inf), np.zeros(count, int)
    converged = np.zeros(count, bool)

    def round_of(rows, rate, steps, number):
        """Moves rows; returns by how much their ELBO has grown."""
        # Always as many, for one compilation; what is too many is dropped.
        padded = np.resize(rows, min(AT_ONCE, count))
        moved, found = compiled(vae, _round)(
            images[padded],
            family,
            tf.nest.map_structure(lambda value: value[padded], best),
            tf.constant(rate),
            tf.constant(steps),
            tf.constant([seed, number], tf.int64),
        )
        found = found.numpy()[: len(rows)]
        better, gain = found > elbo[rows], found - elbo[rows]
        for kept, new in zip(
            tf.nest.flatten(best), tf.nest.flatten(moved), strict=True
        ):
            kept[rows[better]] = new.numpy()[: len(rows)][better]
        elbo[rows] = np.where(better, found, elbo[rows])
        taken[rows] += steps
        return gain

    every = np.arange(count)
    for rows in cut(every):
        round_of(rows, 0.0, 0, 0)  # no step: the ELBO of the start
    for turn, (rate, steps) in enumerate(TURNS, start=1):
        rows, number = every[taken < max_steps], turn * 2**16
        while len(rows):
            gains = np.concatenate(
                [round_of(some, rate, steps, number) for some in cut(rows)]
            )
            if turn == len(TURNS):
                converged[rows] = gains <= tolerance
                finished(int(np.sum(converged[rows])))
            rows = rows[(gains > tolerance) & (taken[rows] < max_steps)]
            number += 1
    return best, taken, converged


def adam(
    gradient: tf.Tensor, mean: tf.Tensor, square: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """An update of Adam (Kingma and Ba 2014, arXiv:1412.6980): the direction of
    the step, and the decayed means of gradients and of their squares.

    Args:
      gradient: any shape.
      mean, square: as the last update left them.
      count: of updates, this one with them, float32, and broadcast.
    """
    mean = BETA_1 * mean + (1 - BETA_1) * gradient
    square = BETA_2 * square + (1 - BETA_2) * gradient**2
    slope = mean / (1 - BETA_1**count)
    size = tf.sqrt(square / (1 - BETA_2**count)) + EPSILON
    return slope / size, mean, square


def _round(
    vae, images, family, parameters, rate, steps, seed
) -> tuple[Any, Any]:
    """Parameters after a round's steps from these, and their ELBO `[B]`."""
    chosen, prior = FAMILIES[family], vae.prior_distribution()
    batch, dim = images.shape[0], vae.encoder.latent_dim
    estimator = "stl" if chosen.one_pass_density else "plain"

    def bound(parameters, half, estimator="plain"):
        """The ELBO `[B]` by draws `half` `[P, D]` of noise and their opposites,
        the same for every image.
        """
        noise = tf.concat([half, -half], 0)[:, tf.newaxis]
        # TFP keeps what it made of a tensor, in a loop too, for use after it.
        targets = tf.identity(images)
        draws = objectives.draw(
            chosen.distribution(parameters),
            prior,
            noise + tf.zeros((batch, dim)),
            lambda z: vae.decoder(z).log_prob(targets),
            estimator,
        )
        return tf.reduce_mean(draws.log_weights, axis=0)

    def noise_of(step):
        """Of a step of the round; those of a block are spread evenly."""
        block, place = step // BLOCK, step % BLOCK
        number = seed[1] * 2**32 + 2 * tf.cast(block + 1, tf.int64)
        some = stratified_normal(
            (BLOCK * PAIRS, dim), key("local", seed[0], number)
        )
        return tf.reshape(some, (BLOCK, PAIRS, dim))[place]

    none = tf.nest.map_structure(tf.zeros_like, parameters)

    def update(number, step, mean, square, average):
        with tf.GradientTape() as tape:
            tape.watch(step)
            elbo = bound(
                chosen.moved(parameters, step), noise_of(number), estimator
            )
        slope = tape.gradient(elbo, step)
        done = tf.cast(number, tf.float32) + 1
        parts = (tf.nest.flatten(part) for part in (slope, mean, square))
        moved = [
            adam(slope, mean, square, done)
            for slope, mean, square in zip(*parts, strict=True)
        ]
        ups, mean, square = (
            tf.nest.pack_sequence_as(none, new)
            for new in zip(*moved, strict=True)
        )
        step = tf.nest.map_structure(
            lambda value, up: value + rate * up, step, ups
        )
        share = tf.where(2 * number >= steps, 2 / steps, 0)
        share = tf.cast(share, tf.float32)
        average = tf.nest.map_structure(
            lambda old, new: old + share * new, average, step
        )
        return number + 1, step, mean, square, average

    *_, average = tf.while_loop(
        lambda number, *_: number < steps,
        update,
        (tf.constant(0), none, none, none, none),
    )
    moved = chosen.moved(parameters, average)
    common = stratified_normal((COMMON // 2, dim), key("local", seed[0]))
    return moved, bound(moved, common)
