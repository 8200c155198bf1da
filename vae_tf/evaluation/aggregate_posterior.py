"""The aggregate posterior of N images, q(z) = 1/N sum_n q(z|x_n)."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from vae_tf.evaluation.compiled import compiled
from vae_tf.settings import UserError
from vae_tf.vae import VAE

PAIRS_AT_ONCE = 8192  # of a z and an image, whose q(z|x) is computed


def check(vae: VAE) -> None:
    """Raises UserError where log q(z|x) of a posterior, at a z of another
    origin, takes D passes.
    """
    if not vae.encoder.one_pass_density:
        raise UserError(
            "aggregate: expected False with posterior "
            f"{type(vae.encoder.posterior).__name__}, received True: q(z) is "
            "made of log q(z|x) of every image at the z of every other, which "
            f"takes {vae.encoder.latent_dim} passes each, one after the other. "
            "Reconstruction, KL and active units need none of that."
        )


def log_density(
    vae: VAE,
    dataset: tf.data.Dataset,
    z: np.ndarray,
    after_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """log q(z) = log 1/N sum_n q(z|x_n) `[...]`, float64, in nats.

    Every image is encoded once. Memory: z, one number for each, and a batch.

    Args:
      vae: a model.
      dataset: batches of the N images `[B, H, W, C]`.
      z: `[..., D]`, float32.
      after_batch: is called after each batch.

    Raises:
      UserError: see `check`.
    """
    check(vae)
    flat = tf.constant(z.reshape(-1, z.shape[-1]))  # [S, D]
    log_sum = tf.fill(flat.shape[:1], tf.constant(-math.inf, tf.float64))
    count = 0
    for images in dataset:
        images = vae.check_images(images)
        log_sum = compiled(vae, _add_densities)(images, flat, log_sum)
        count += len(images)
        after_batch()
    return log_sum.numpy().reshape(z.shape[:-1]) - math.log(count)


def _add_densities(vae, images, z, log_sum):
    """log sum_n q(z|x_n) `[S]`, float64, at z `[S, D]`, with the images of one
    more batch.
    """
    posterior = vae.encoder(images)
    total, dim = z.shape
    at_once = min(total, max(1, PAIRS_AT_ONCE // images.shape[0]))
    chunks = -(-total // at_once)
    padded = tf.pad(z, [[0, chunks * at_once - total], [0, 0]])

    def densities(some):  # [s, D] -> [s]
        log_q = posterior.log_prob(some[:, tf.newaxis])  # [s, B]
        return tf.reduce_logsumexp(tf.cast(log_q, tf.float64), axis=1)

    more = tf.map_fn(
        densities,
        tf.reshape(padded, (chunks, at_once, dim)),
        fn_output_signature=tf.float64,
        parallel_iterations=1,  # more would need the memory of more
    )
    more = tf.reshape(more, [-1])[:total]
    return tf.reduce_logsumexp(tf.stack([log_sum, more]), axis=0)
