"""Importance weights of draws from a posterior of each image's own, of which
its ELBO and log p(x) are made.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.evaluation import estimates
from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.estimates import Estimates
from vae_tf.evaluation.moments import Moments, bound_sizes, importance_moments
from vae_tf.inference.families import FAMILIES, Parameters
from vae_tf.noise import key, standard_normal
from vae_tf.vae import VAE

AT_ONCE = 256  # images of one compiled call
ROWS_AT_ONCE = 2048  # draws decoded together


def cut(rows: np.ndarray) -> list[np.ndarray]:
    """Parts of at most as many as one compiled call takes."""
    return [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)]


def log_weights(
    vae: VAE,
    images: tf.Tensor,
    family: str,
    parameters: Parameters,
    num_samples: int,
    seed: int,
) -> np.ndarray:
    """log w = log p(x, z) - log q(z) `[K, N]`, in nats, of draws z ~ q: on
    average the ELBO. Equal seeds give the noise of equal draws, whatever the
    parameters, so that two posteriors of an image are compared on it.

    Args:
      vae: a model.
      images: x `[N, H, W, C]`.
      family, parameters: of each image's q, tensors or arrays `[N, ...]`.
      num_samples: K.
      seed: of the noise.
    """
    parts = _in_parts(
        vae, _log_weights, images, family, parameters, num_samples, seed, 0
    )
    return np.concatenate(parts, axis=1)


def estimate(
    vae: VAE,
    images: tf.Tensor,
    family: str,
    parameters: Parameters,
    num_samples: int,
    seed: int,
    first: int = 0,
) -> Estimates:
    """log p(x) and the ELBO as `importance.estimate` has them, from draws of
    these posteriors in place of the encoder's; arguments as of `log_weights`,
    and the number of the first image.
    """
    parts = _in_parts(
        vae, _moments, images, family, parameters, num_samples, seed, first
    )
    moments = Moments(
        *(np.concatenate(some, axis=-1) for some in zip(*parts, strict=True))
    )
    return estimates.of_moments(moments, num_samples)


def _in_parts(
    vae,
    function: Callable,
    images,
    family,
    parameters,
    num_samples,
    seed,
    first,
) -> list[Any]:
    """What a compiled function gives for parts of the images `[..., B]`."""
    count = images.shape[0]
    found = []
    for rows in cut(np.arange(count)):
        # Always as many, for one compilation; what is too many is dropped.
        padded = np.resize(rows, min(AT_ONCE, count))
        part = compiled(vae, function)(
            tf.gather(images, padded),
            family,
            _rows(parameters, padded),
            num_samples,
            tf.constant([seed, first + rows[0]], tf.int64),
        )
        part = tf.nest.map_structure(np.asarray, part)
        found.append(
            tf.nest.map_structure(
                operator.itemgetter((..., slice(len(rows)))), part
            )
        )
    return found


def _rows(parameters: Parameters, rows: np.ndarray) -> Parameters:
    return tf.nest.map_structure(
        lambda value: tf.gather(value, rows), parameters
    )


def _log_weights(vae, images, family, parameters, num_samples, seed):
    batch, dim = images.shape[0], vae.encoder.latent_dim
    posterior = FAMILIES[family].distribution(parameters)
    prior = vae.prior_distribution()
    at_once = min(num_samples, max(1, ROWS_AT_ONCE // batch))

    def chunk(number):
        number = seed[1] * 2**32 + number
        draws = objectives.draw(
            posterior,
            prior,
            standard_normal(
                (at_once, batch, dim), key("local bound", seed[0], number)
            ),
            lambda z: vae.decoder(z).log_prob(tf.identity(images)),
        )
        return draws.log_weights

    chunks = tf.range(-(-num_samples // at_once), dtype=tf.int64)
    every = tf.map_fn(
        chunk,
        chunks,
        fn_output_signature=tf.float32,
        parallel_iterations=1,  # more would need the memory of more
    )
    return tf.reshape(every, (-1, batch))[:num_samples]


def _moments(vae, images, family, parameters, num_samples, seed):
    batch, dim = images.shape[0], vae.encoder.latent_dim
    at_once = min(num_samples, max(1, ROWS_AT_ONCE // batch))

    def noise(chunk):
        number = seed[1] * 2**32 + tf.cast(chunk, tf.int64)
        return standard_normal(
            (at_once, batch, dim), key("importance", seed[0], number)
        )

    return importance_moments(
        vae,
        images,
        FAMILIES[family].distribution(parameters),
        vae.prior_distribution(),
        num_samples,
        at_once,
        noise,
        estimates.kept(num_samples),
        bound_sizes(num_samples),
    )
