"""Random numbers that are a function of their seed, the same under XLA as
outside of it.

TensorFlow's own draws differ under XLA, where they take ten times as long.
Philox's bits (Salmon et al. 2011) are the same everywhere."""

import math

import tensorflow as tf

WORD = 64  # bits
# What is drawn. It is a part of each key, so that no two uses share draws.
PURPOSES = (
    "training",
    "validation",
    "elbo",
    "importance",
    "latent",
    "image",
    "picture",
    "order",
    "bit",
    "level",
    "decomposition",
    "bootstrap",
    "local",
    "local start",
    "local bound",
    "annealing",
    "acceptance",
    "rows",
    "held out rows",
)
SEED_BITS = 56
EDGE = 2.0**-24  # of (0, 1), for float32


def key(purpose: str, seed, number=0) -> tf.Tensor:
    """The key of some draws, `[2]` int64, which `uniform` and others take as
    their seed.

    Args:
      purpose: a name of `PURPOSES`.
      seed: a whole number, of which 56 bits count.
      number: of the update, image or pass that the draws belong to.
    """
    seed = tf.bitwise.bitwise_and(
        tf.cast(seed, tf.int64), tf.constant(2**SEED_BITS - 1, tf.int64)
    )
    first = (PURPOSES.index(purpose) + 1) << SEED_BITS
    return tf.stack([seed + first, tf.cast(number, tf.int64)])


def for_tfp(key: tf.Tensor) -> tf.Tensor:
    """A seed as TensorFlow Probability's samplers take one, `[2]` int32."""
    return tf.random.stateless_uniform(
        (2,), key, None, None, tf.int32, alg="philox"
    )


def uniform(shape: tuple, seed, bits: int = 16) -> tf.Tensor:
    """Independent draws, float32, from the middles of 2^`bits` equal parts of
    (0, 1), so that none of them is 0 or 1.

    Args:
      shape: `[..., D]`, of which D is known.
      seed: two integers, such as a `key`.
      bits: 23 at the most, beyond which float32 rounds to 1.
    """
    # Each word gives several draws, and by shifts, because XLA makes a word
    # anew for each element that it computes from it.
    *rows, columns = shape
    count = WORD // bits
    words = tf.random.stateless_uniform(
        (*rows, -(-columns // count)), seed, None, None, tf.uint64, alg="philox"
    )

    def draws(first_bit):
        word = tf.bitwise.right_shift(words, tf.constant(first_bit, tf.uint64))
        part = tf.bitwise.bitwise_and(word, tf.constant(2**bits - 1, tf.uint64))
        middle = tf.cast(tf.cast(part, tf.int32), tf.float32) + 0.5
        return middle * 2.0**-bits

    parts = [draws(number * (WORD // count)) for number in range(count)]
    return tf.concat(parts, -1)[..., :columns]


def standard_normal(shape: tuple, seed) -> tf.Tensor:
    """Independent draws from N(0, 1), float32; shape and seed as of `uniform`.
    The same under XLA but for rounding, 3e-5 at the most.

    epsilon = sqrt(2) erfinv(2 u - 1), with u uniform in (0, 1), inverts the
    normal's distribution function; the largest draw is 5.3.
    """
    return _normal(uniform(shape, seed, 23))


def stratified_normal(shape: tuple[int, int], seed) -> tf.Tensor:
    """Draws from N(0, 1), float32, `[N, D]`, of which each column has one in
    each of N parts of equal probability, in random order: averages over the
    draws of a sum of functions of single columns have a variance that falls
    faster than 1 / N (McKay, Beckman and Conover 1979, Latin hypercube
    sampling). N is at most 2^16.
    """
    order, place = (uniform(shape, seed + [0, part], 23) for part in (0, 1))
    part = tf.cast(tf.argsort(order, axis=0), tf.float32)
    return _normal(tf.clip_by_value((part + place) / shape[0], EDGE, 1 - EDGE))


def _normal(uniform: tf.Tensor) -> tf.Tensor:
    return math.sqrt(2) * tf.math.erfinv(2 * uniform - 1)
