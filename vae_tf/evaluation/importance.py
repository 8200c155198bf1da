"""What a trained model is worth: the ELBO and log p(x), in nats per image, with
error bars.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf.evaluation import pareto
from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.errors_of_means import bootstrap, jackknife
from vae_tf.evaluation.moments import Moments, importance_moments
from vae_tf.noise import key, standard_normal
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

BATCH_SIZE = 128  # images at once
ROWS_AT_ONCE = 2048  # latent draws decoded together, images times samples
EXACT = 64  # the largest weights that the jackknife leaves out one by one
INTERVAL = 1.959964  # standard errors, of 95% of a normal distribution


class Estimates(NamedTuple):
    """Per image, `[B]`, in nats where nothing else is said."""

    elbo: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    log_marginal_likelihood: np.ndarray
    variance: np.ndarray  # of the estimate of log p(x), nats squared
    effective_sample_size: np.ndarray  # between 1 and K
    bias: np.ndarray | None = None  # of the estimate of log p(x), about
    pareto_k: np.ndarray | None = None  # k-hat of its weights, NaN if K < 25


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
) -> dict[str, Any]:
    """Averages over images, with their errors.

    Args:
      estimates: of any number of images.
      num_importance_samples: K, with which they were made.

    Returns:
      A dict of `num_examples`; `elbo`, `reconstruction`, `kl` and
      `log_marginal_likelihood`, in nats per image; `standard_error` of
      log p(x) over images and `monte_carlo_standard_error` of the estimator at
      this K, each None where one draw cannot show it; `num_importance_samples`;
      the median `effective_sample_size`; `log_marginal_likelihood_interval`,
      [lower, upper], 95% by the bootstrap over images, None of one image;
      `monte_carlo_bias`, by how much the estimator at this K is off on average,
      below 0, or None; and `pareto_k_over_0.7`, the share of images whose
      weights have so heavy a tail that their log p(x) and its error are not to
      be trusted, None with K < 25.
    """
    count = len(estimates.elbo)
    log_p = estimates.log_marginal_likelihood
    bias, k, interval = estimates.bias, estimates.pareto_k, bootstrap(log_p)
    several = num_importance_samples > 1
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
        if several
        else None,
        "num_importance_samples": num_importance_samples,
        "effective_sample_size": float(
            np.median(estimates.effective_sample_size)
        ),
        "log_marginal_likelihood_interval": interval and list(interval),
        "monte_carlo_bias": float(bias.mean())
        if several and bias is not None
        else None,
        f"pareto_k_over_{pareto.UNRELIABLE}": float(
            np.mean(k > pareto.UNRELIABLE)
        )
        if k is not None and pareto.tail_length(num_importance_samples)
        else None,
    }


def interval(estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
    """Ends of a 95% interval for log p(x) of each image, `[B]` each, in nats:
    1.96 standard errors about the estimate less its bias. It holds where K is
    large for the weights' tail (`pareto_k` well below 0.7).
    """
    middle = estimates.log_marginal_likelihood - estimates.bias
    error = INTERVAL * np.sqrt(estimates.variance)
    return middle - error, middle + error


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
    weight s over the K draws, the effective sample size is K m^2 / s. Variance
    and bias of log m are the jackknife's (`errors_of_means.jackknife`), and
    k-hat says whether the weights' tail lets them be trusted (`pareto.shape`).

    The draws are streamed, and of the weights the 64 or 3 sqrt(K) + 1 largest
    are kept: memory hardly grows with K.

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
    moments = compiled(vae, _seeded_moments)(
        images, num_samples, at_once, tf.constant([seed, first], tf.int64)
    )
    return of_moments(moments, num_samples)


def _seeded_moments(
    vae: VAE, images: tf.Tensor, num_samples: int, at_once: int, seed: tf.Tensor
) -> Moments:
    shape = (at_once, images.shape[0], vae.encoder.latent_dim)

    def noise(chunk):
        # Number of the first image, and below it that of the chunk.
        number = seed[1] * 2**32 + tf.cast(chunk, tf.int64)
        return standard_normal(shape, key("importance", seed[0], number))

    return importance_moments(
        vae,
        images,
        vae.encoder(images),
        vae.prior_distribution(),
        num_samples,
        at_once,
        noise,
        kept(num_samples),
    )


def kept(num_samples: int) -> int:
    """How many of the largest of K weights `of_moments` wants."""
    return min(num_samples, max(pareto.tail_length(num_samples) + 1, EXACT))


def of_moments(moments: Moments, num_samples: int) -> Estimates:
    """Estimates from `importance_moments` of K draws, with the `kept(K)`
    largest weights; see `estimate`.
    """
    reconstruction, kl, log_sum, log_sum_of_squares, largest = (
        np.asarray(moment).T.astype(np.float64) for moment in moments
    )  # [B] each, and [B, T]
    variance, bias = jackknife(
        largest, log_sum, log_sum_of_squares, num_samples
    )
    return Estimates(
        elbo=reconstruction - kl,
        reconstruction=reconstruction,
        kl=kl,
        log_marginal_likelihood=log_sum - math.log(num_samples),
        variance=variance,
        effective_sample_size=np.exp(2 * log_sum - log_sum_of_squares),
        bias=bias,
        pareto_k=pareto.shape(largest, num_samples),
    )
