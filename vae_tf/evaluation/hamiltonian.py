"""Hamiltonian Monte Carlo between two densities: a step of a Markov chain that
leaves r(u) w(u)^b as it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

LEAPFROG_STEPS = 3  # of a proposal

# u [K, B, D] -> log r(u) and log w(u), [K, B] each, in nats.
LogDensities = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Point(NamedTuple):
    """Where K chains of each of B images are, and all that a step needs of it,
    whatever b is.
    """

    place: tf.Tensor  # u, [K, B, D]
    log_start: tf.Tensor  # log r(u), [K, B]
    log_weight: tf.Tensor  # log w(u), [K, B]
    start_slope: tf.Tensor  # d log r / du, [K, B, D]
    weight_slope: tf.Tensor  # d log w / du, [K, B, D]


def point(log_densities: LogDensities, place: tf.Tensor) -> Point:
    """The point of chains at u `[K, B, D]`."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(place)
        log_start, log_weight = log_densities(place)
    return Point(
        place,
        log_start,
        log_weight,
        tape.gradient(log_start, place),
        tape.gradient(log_weight, place),
    )


def step(
    log_densities: LogDensities,
    before: Point,
    share: tf.Tensor,
    step_size: tf.Tensor,
    momentum: tf.Tensor,
    uniform: tf.Tensor,
) -> tuple[Point, tf.Tensor, tf.Tensor]:
    """A step that leaves the density proportional to r(u) w(u)^b as it is, by
    three leapfrog steps and Metropolis' rule. Neal 2011, MCMC using Hamiltonian
    dynamics, arXiv:1206.1901.

    A proposal where a density is no number is not accepted.

    Args:
      log_densities: log r and log w.
      before: of K chains of each image.
      share: b, a number.
      step_size: `[B]`.
      momentum: standard-normal draws `[K, B, D]`.
      uniform: draws from (0, 1) `[K, B]`.

    Returns:
      The points after it; whether each proposal was accepted, bool `[K, B]`;
        and the probability with which it was, `[K, B]`.
    """
    step_size = step_size[:, tf.newaxis]

    def slope(at):
        return at.start_slope + share * at.weight_slope

    def log_joint(at, momentum):
        kinetic = 0.5 * tf.reduce_sum(momentum**2, axis=-1)
        return at.log_start + share * at.log_weight - kinetic

    def leap(count, at, momentum):
        momentum += step_size / 2 * slope(at)
        at = point(log_densities, at.place + step_size * momentum)
        return count + 1, at, momentum + step_size / 2 * slope(at)

    _, proposal, last = tf.while_loop(
        lambda count, *_: count < LEAPFROG_STEPS,
        leap,
        (tf.constant(0), before, momentum),
    )
    log_ratio = log_joint(proposal, last) - log_joint(before, momentum)
    probability = tf.exp(tf.minimum(log_ratio, 0.0))
    probability = tf.where(tf.math.is_nan(probability), 0.0, probability)
    accepted = uniform < probability

    def chosen(new, old):
        wide = tf.reshape(accepted, accepted.shape + [1] * (new.shape.rank - 2))
        return tf.where(wide, new, old)

    after = Point(*map(chosen, proposal, before))
    return after, accepted, probability
