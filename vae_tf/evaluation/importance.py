"""What a trained model is worth: the ELBO and log p(x), in nats per image, with
error bars.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.noise import standard_normal
from vae_tf.settings import UserError
from vae_tf.vae import NO_IMAGES, VAE

BATCH_SIZE = 128  # images at once
ROWS_AT_ONCE = 2048  # latent draws decoded together, images times samples


class Estimates(NamedTuple):
    """Per image, `[B]`, in nats but for the last two."""

    elbo: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    log_marginal_likelihood: np.ndarray
    variance: np.ndarray  # of the estimate of log p(x), nats squared
    effective_sample_size: np.ndarray  # between 1 and K


def evaluate(
    vae: VAE,
    dataset: tf.data.Dataset,
    num_importance_samples: int,
    seed: int,
    verbose: int = 0,
) -> Estimates:
    """`estimate` of every image of a dataset, in its order.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`.
      num_importance_samples: K.
      seed: of the draws of z; the result is a function of it.
      verbose: 1 shows a progress bar.
    """
    if len(dataset) == 0:
        raise UserError(NO_IMAGES)
    batches: list[Estimates] = []
    bar = keras.utils.Progbar(
        len(dataset), verbose=verbose, stateful_metrics=["log p(x)"]
    )
    for images in dataset:
        first = sum(len(batch.elbo) for batch in batches)
        batches.append(
            estimate(vae, images, num_importance_samples, seed, first)
        )
        log_p = np.concatenate(
            [batch.log_marginal_likelihood for batch in batches]
        )
        bar.update(len(batches), [("log p(x)", log_p.mean())])
    return Estimates(*map(np.concatenate, zip(*batches, strict=True)))


def summary(
    estimates: Estimates, num_importance_samples: int
) -> dict[str, float | None]:
    """Averages over images, with their errors.

    Args:
      estimates: of any number of images.
      num_importance_samples: K, with which they were made.

    Returns:
      A dict of `num_examples`; `elbo`, `reconstruction`, `kl` and
      `log_marginal_likelihood`, in nats per image; `standard_error` of
      log p(x) over images and `monte_carlo_standard_error` of the estimator at
      this K, each None where one draw cannot show it; `num_importance_samples`;
      the median `effective_sample_size`.
    """
    count = len(estimates.elbo)
    log_p = estimates.log_marginal_likelihood
    return {
        "num_examples": count,
        "elbo": float(estimates.elbo.mean()),
        "reconstruction": float(estimates.reconstruction.mean()),
        "kl": float(estimates.kl.mean()),
        "log_marginal_likelihood": float(log_p.mean()),
        "standard_error": float(log_p.std(ddof=1) / math.sqrt(count))
        if count > 1
        else None,
        "monte_carlo_standard_error": float(
            np.sqrt(estimates.variance.sum()) / count
        )
        if num_importance_samples > 1
        else None,
        "num_importance_samples": num_importance_samples,
        "effective_sample_size": float(
            np.median(estimates.effective_sample_size)
        ),
    }


def log_marginal_likelihood(
    vae: VAE, images, num_samples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Importance-weighted estimate of log p(x) for each image, `[B]`, in nats;
    see `estimate`.

    Raises:
      UserError: `num_samples` is below 1, or the images are not what
        `VAE.check_images` expects.
    """
    return estimate(vae, images, num_samples, seed).log_marginal_likelihood


def estimate(
    vae: VAE, images, num_samples: int, seed: int, first: int = 0
) -> Estimates:
    """log p(x) ~ log(1/K sum_k w_k), w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x),
    and the ELBO from the same draws.

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519, equation 8: below
    log p(x) on average, and consistent. With mean weight m and mean squared
    weight s over the K draws, the effective sample size is K m^2 / s, and the
    delta method gives the variance of log m as (s / m^2 - 1) / K = 1 / ESS - 1
    / K.

    The draws are streamed: memory does not grow with K.

    Args:
      vae: a trained model.
      images: x `[B, H, W, C]`.
      num_samples: K.
      seed: of the draws.
      first: number of the first image, which gives the batches of a dataset
        draws of their own.
    """
    if type(num_samples) is not int or num_samples < 1:
        raise UserError(
            f"num_samples: expected an integer >= 1, received {num_samples!r}."
        )
    images = vae.check_images(images)
    if images.shape[0] == 0:
        raise UserError(NO_IMAGES)
    at_once = min(num_samples, max(1, ROWS_AT_ONCE // images.shape[0]))
    moments = _compiled(vae)(
        images, num_samples, at_once, tf.constant([seed, first], tf.int32)
    )
    reconstruction, kl, log_sum, log_sum_of_squares = (
        moment.numpy().astype(np.float64) for moment in moments
    )
    effective = np.exp(2 * log_sum - log_sum_of_squares)
    return Estimates(
        elbo=reconstruction - kl,
        reconstruction=reconstruction,
        kl=kl,
        log_marginal_likelihood=log_sum - math.log(num_samples),
        variance=np.maximum(1 / effective - 1 / num_samples, 0),
        effective_sample_size=effective,
    )


def _compiled(vae: VAE):
    """`_seeded_moments` of this model, compiled once and kept with it."""
    if "_importance_moments" not in vars(vae):
        function = tf.function(
            lambda *args: _seeded_moments(vae, *args), jit_compile=True
        )
        object.__setattr__(
            vae, "_importance_moments", function
        )  # Past Keras, which tracks what it can name.
    return vae._importance_moments


def _seeded_moments(
    vae: VAE, images: tf.Tensor, num_samples: int, at_once: int, seed: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    shape = (at_once, images.shape[0], vae.encoder.latent_dim)

    def noise(chunk):
        seed_of_chunk = tf.random.experimental.stateless_fold_in(
            seed, chunk, alg="philox"
        )
        return standard_normal(shape, seed_of_chunk)

    return importance_moments(vae, images, num_samples, at_once, noise)


def importance_moments(
    vae: VAE,
    images: tf.Tensor,
    num_samples: int,
    at_once: int,
    noise: Callable[[tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, ...]:
    """Mean reconstruction, KL, log sum_k w_k and log sum_k w_k^2, each `[B]`
    and in nats, from K draws, a few at a time; see `estimate`.

    Args:
      vae: a model.
      images: x `[B, H, W, C]`.
      num_samples: K.
      at_once: draws of a chunk.
      noise: number of a chunk -> standard-normal epsilon `[at_once, B, D]`.
    """
    posterior, prior = vae.encoder(images), vae.prior_distribution()

    def add(chunk, reconstruction, kl, log_sum, log_sum_of_squares):
        draws = objectives.draw(
            posterior,
            prior,
            noise(chunk),
            lambda z: vae.decoder(z).log_prob(images),
        )  # each [at_once, B]
        log_weights = draws.log_weights
        # The last chunk may reach past K; what lies past it has weight 0.
        counts = (chunk * at_once + tf.range(at_once) < num_samples)[
            :, tf.newaxis
        ]
        log_weights = tf.where(counts, log_weights, -math.inf)
        share = tf.reduce_sum(tf.cast(counts, tf.float32)) / num_samples
        return (
            chunk + 1,
            reconstruction
            + tf.reduce_sum(tf.where(counts, draws.log_likelihood, 0.0), axis=0)
            / num_samples,
            kl + share * objectives.kl_divergence(draws),
            tf.reduce_logsumexp(tf.concat([[log_sum], log_weights], 0), axis=0),
            tf.reduce_logsumexp(
                tf.concat([[log_sum_of_squares], 2 * log_weights], 0), axis=0
            ),
        )

    batch = tf.shape(images)[:1]
    none, empty = tf.zeros(batch), tf.fill(batch, -math.inf)
    chunks = -(-num_samples // at_once)
    result = tf.while_loop(
        lambda chunk, *_: chunk < chunks,
        add,
        (tf.constant(0), none, none, empty, empty),
    )
    return result[1:]
