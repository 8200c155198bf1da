"""Averages over importance weights, of any number of draws in little memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import objectives
from vae_tf.decoder import log_prob_of_pixels
from vae_tf.vae import VAE


class Moments(NamedTuple):
    """Of K weights w_k = p(x, z_k) / q(z_k|x) of each image, in nats: tensors
    of a compiled function, then arrays.
    """

    reconstruction: Any  # mean of log p(x|z), [B]; of each pixel, [B, H, W, C]
    kl: Any  # in closed form where there is one, else from the draws, [B]
    log_sum: Any  # log sum_k w_k, [B]
    log_sum_of_squares: Any  # log sum_k w_k^2, [B]
    largest: Any  # of the log weights, in descending order, [T, B]
    bounds: Any  # mean of log(1/k sum w) over groups of k draws, [J, B]


def bound_sizes(num_samples: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, ... below K, and K."""
    sizes = (
        digit * 10**power
        for power in range(len(str(num_samples)))
        for digit in (1, 2, 5)
    )
    return (*(size for size in sizes if size < num_samples), num_samples)


def importance_moments(
    vae: VAE,
    images: tf.Tensor,
    posterior: tfd.Distribution,
    prior: tfd.Distribution,
    num_samples: int,
    at_once: int,
    noise: Callable[[tf.Tensor], tf.Tensor],
    length: int = 0,
    sizes: tuple[int, ...] = (),
    by_pixel: bool = False,
) -> Moments:
    """`Moments` of K draws from a posterior, the encoder's or any other, a few
    at a time. ELBO = reconstruction - KL, and log p(x) ~ log_sum - log K.

    It is meant for a function that `compiled` or a signature traces: memory is
    that of one chunk, where the largest weights are kept, of these and about
    as many more, and two numbers of an image for each size of group.

    Args:
      vae: a model, whose decoder is used.
      images: x `[B, H, W, C]`.
      posterior: q(z|x), from which z is drawn, batch `[B]`, event `[D]`.
      prior: p(z), batch `[]`, event `[D]`.
      num_samples: K.
      at_once: draws of a chunk.
      noise: number of a chunk -> standard-normal epsilon `[at_once, B, D]`. Of
        the last chunk, what lies past K does not count.
      length: T, how many of the largest weights are kept; unless 0, B must be
        known when the function is traced.
      sizes: k of the importance-weighted bounds, at most K: the draws fall into
        as many groups of k, one after the other, as there are whole ones.
      by_pixel: whether `reconstruction` is that of each pixel, where the
        decoder says them (`log_prob_of_pixels`).
    """
    exact_kl = objectives.exact_kl(posterior, prior)
    # Sorted in when there are about as many as have been kept, which costs
    # less than chunk by chunk.
    rows = max(1, -(-length // at_once))
    chunks = -(-num_samples // at_once)

    def add(
        chunk,
        reconstruction,
        kl,
        log_sum,
        log_sum_of_squares,
        largest,
        sums,
        recent,
        groups,
    ):
        of_pixels: list[tf.Tensor] = []

        def log_likelihood(z):
            if not by_pixel:
                return vae.decoder(z).log_prob(images)
            of_pixels.append(log_prob_of_pixels(vae.decoder(z), images))
            return tf.reduce_sum(of_pixels[0], axis=(-3, -2, -1))

        draws = objectives.draw(
            posterior, prior, noise(chunk), log_likelihood
        )  # each [at_once, B]
        log_weights = draws.log_weights
        # The last chunk may reach past K; what lies past it has weight 0.
        counts = (chunk * at_once + tf.range(at_once) < num_samples)[
            :, tf.newaxis
        ]
        log_weights = tf.where(counts, log_weights, -math.inf)

        def average(logarithms):
            rows = tf.reshape(counts, (-1, *[1] * (logarithms.shape.rank - 1)))
            total = tf.reduce_sum(tf.where(rows, logarithms, 0.0), axis=0)
            return total / num_samples

        if exact_kl is None:
            kl += average(draws.log_q - draws.log_prior)
        if length:
            row = chunk % rows
            recent = tf.tensor_scatter_nd_update(recent, [[row]], [log_weights])
            largest, recent = tf.cond(
                (row == rows - 1) | (chunk == chunks - 1),
                lambda: _merged(largest, recent),
                lambda: (largest, recent),
            )
        if sizes:
            sums, groups = _grouped(
                sums, groups, log_weights, chunk * at_once, num_samples, sizes
            )
        return (
            chunk + 1,
            reconstruction + average([*of_pixels, draws.log_likelihood][0]),
            kl,
            tf.reduce_logsumexp(tf.concat([[log_sum], log_weights], 0), axis=0),
            tf.reduce_logsumexp(
                tf.concat([[log_sum_of_squares], 2 * log_weights], 0), axis=0
            ),
            largest,
            sums,
            recent,
            groups,
        )

    batch = images.shape[0] if length else tf.shape(images)[0]
    none, empty = tf.zeros(batch), tf.fill([batch], -math.inf)
    result = tf.while_loop(
        lambda chunk, *_: chunk < chunks,
        add,
        (
            tf.constant(0),
            tf.zeros_like(images) if by_pixel else none,
            none if exact_kl is None else exact_kl,
            empty,
            empty,
            tf.fill([length, batch], -math.inf),
            tf.zeros([len(sizes), batch], tf.float64),
            tf.fill([rows if length else 0, at_once, batch], -math.inf),
            tf.fill([len(sizes), batch], -math.inf),
        ),
        parallel_iterations=1,  # more would need the memory of more
    )
    moments = Moments(*result[1:7])
    size = tf.constant(sizes, tf.float64, (len(sizes), 1))
    return moments._replace(
        bounds=moments.bounds / (num_samples // size) - tf.math.log(size)
    )


def _merged(largest, recent):
    """The largest of those kept `[T, B]` and of recent ones `[R, K, B]`, in
    descending order; and of recent ones none.
    """
    length, batch = largest.shape
    every = tf.concat([largest, tf.reshape(recent, (-1, batch))], 0)
    values, _ = tf.math.top_k(tf.transpose(every), length)
    return tf.transpose(values), tf.fill(recent.shape, -math.inf)


def _grouped(sums, groups, log_weights, first, num_samples, sizes):
    """Sums of log sum w over groups that are full `[J, B]`, float64, and log
    sum w of each group that is not `[J, B]`, after more draws `[K, B]`, the
    first of them number `first`.
    """
    at_once = log_weights.shape[0]
    numbers = first + tf.range(at_once)[:, tf.newaxis]
    full = (numbers + 1) % tf.constant(sizes) == 0  # [K, J]

    # A draw at a time: groups of every size fit every chunk, and of so few
    # numbers that costs next to nothing.
    def add(row, sums, groups):
        log_weight, ends = log_weights[row], full[row][:, tf.newaxis]
        larger = tf.maximum(groups, log_weight)
        smaller = tf.minimum(groups, log_weight)
        groups = tf.where(
            larger > -math.inf,
            larger + tf.math.log(1 + tf.exp(smaller - larger)),
            -math.inf,
        )
        return (
            row + 1,
            sums + tf.cast(tf.where(ends, groups, 0.0), tf.float64),
            tf.where(ends, -math.inf, groups),
        )

    stop = tf.minimum(at_once, num_samples - first)
    return tf.while_loop(
        lambda row, *_: row < stop, add, (tf.constant(0), sums, groups)
    )[1:]
