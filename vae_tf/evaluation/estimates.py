"""What the moments of importance weights say of log p(x), image by image."""

import math
from typing import NamedTuple

import numpy as np

from vae_tf.evaluation import pareto
from vae_tf.evaluation.errors_of_means import jackknife
from vae_tf.evaluation.moments import Moments

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
    num_samples: np.ndarray | None = None  # K
    bounds: np.ndarray | None = None  # of `moments.bound_sizes`, [B, J]


def kept(num_samples: int) -> int:
    """How many of the largest of K weights `of_moments` wants."""
    return min(num_samples, max(pareto.tail_length(num_samples) + 1, EXACT))


def of_moments(moments: Moments, num_samples: int) -> Estimates:
    """Estimates from `importance_moments` of K draws, with the `kept(K)`
    largest weights or more; see `importance.estimate`.
    """
    reconstruction, kl, log_sum, log_sum_of_squares, largest, bounds = (
        np.asarray(moment).T.astype(np.float64) for moment in moments
    )  # [B] each, [B, T] and [B, J]
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
        num_samples=np.full(len(kl), num_samples),
        bounds=bounds,
    )


def interval(estimates: Estimates) -> tuple[np.ndarray, np.ndarray]:
    """Ends of a 95% interval for log p(x) of each image, `[B]` each, in nats:
    1.96 standard errors about the estimate less its bias. It holds where K is
    large for the weights' tail (`pareto_k` well below 0.7).
    """
    middle = estimates.log_marginal_likelihood - estimates.bias
    error = INTERVAL * np.sqrt(estimates.variance)
    return middle - error, middle + error
