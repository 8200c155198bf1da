"""What a trained model is worth: the ELBO and log p(x), in nats per image, with
error bars.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.evaluation import pareto
from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.errors_of_means import bootstrap, jackknife
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
    reconstruction, kl, log_sum, log_sum_of_squares, largest = (
        moment.numpy().T.astype(np.float64) for moment in moments
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


def _seeded_moments(
    vae: VAE, images: tf.Tensor, num_samples: int, at_once: int, seed: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    shape = (at_once, images.shape[0], vae.encoder.latent_dim)

    def noise(chunk):
        # Number of the first image, and below it that of the chunk.
        number = seed[1] * 2**32 + tf.cast(chunk, tf.int64)
        return standard_normal(shape, key("importance", seed[0], number))

    length = min(num_samples, max(pareto.tail_length(num_samples) + 1, EXACT))
    return _streamed(vae, images, num_samples, at_once, noise, length)


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
    return _streamed(vae, images, num_samples, at_once, noise)[:4]


def _streamed(
    vae, images, num_samples, at_once, noise, length=0
) -> tuple[tf.Tensor, ...]:
    """`importance_moments`, and the `length` largest log weights `[length, B]`,
    in descending order.
    """
    posterior, prior = vae.encoder(images), vae.prior_distribution()
    exact_kl = objectives.exact_kl(posterior, prior)
    # Sorted in when there are about as many as have been kept, which costs
    # less than chunk by chunk.
    rows = max(1, -(-length // at_once))
    chunks = -(-num_samples // at_once)

    def add(
        chunk, reconstruction, kl, log_sum, log_sum_of_squares, largest, recent
    ):
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

        def average(logarithms):
            total = tf.reduce_sum(tf.where(counts, logarithms, 0.0), axis=0)
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
        return (
            chunk + 1,
            reconstruction + average(draws.log_likelihood),
            kl,
            tf.reduce_logsumexp(tf.concat([[log_sum], log_weights], 0), axis=0),
            tf.reduce_logsumexp(
                tf.concat([[log_sum_of_squares], 2 * log_weights], 0), axis=0
            ),
            largest,
            recent,
        )

    batch = images.shape[0] if length else tf.shape(images)[0]
    none, empty = tf.zeros(batch), tf.fill([batch], -math.inf)
    result = tf.while_loop(
        lambda chunk, *_: chunk < chunks,
        add,
        (
            tf.constant(0),
            none,
            none if exact_kl is None else exact_kl,
            empty,
            empty,
            tf.fill([length, batch], -math.inf),
            tf.fill([rows if length else 0, at_once, batch], -math.inf),
        ),
    )
    return result[1:6]


def _merged(largest, recent):
    """The largest of those kept `[T, B]` and of recent ones `[R, K, B]`, in
    descending order; and of recent ones none.
    """
    length, batch = largest.shape
    every = tf.concat([largest, tf.reshape(recent, (-1, batch))], 0)
    values, _ = tf.math.top_k(tf.transpose(every), length)
    return tf.transpose(values), tf.fill(recent.shape, -math.inf)
