"""How far an average is from what it estimates: the logarithm of a mean weight,
by leaving each weight out; a mean over images, by drawing them anew.
"""

import math
from typing import Any

import numpy as np

from vae_tf.noise import key

RESAMPLES = 2000
NUMBERS_AT_ONCE = 2**22  # 32 MiB
RESOLUTION = 1e-5  # of a share of the sum, which is made in float32


def jackknife(
    largest: np.ndarray,
    log_sum: np.ndarray,
    log_sum_of_squares: np.ndarray,
    num_samples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Variance and bias of L = log(1/K sum_k w_k), `[B]` each, nats squared and
    nats, from what L would be without one weight, L_k (Efron and Stein
    1981, Annals of Statistics 9(3)):

      variance = (K - 1) / K sum_k (L_k - mean L_k)^2
      bias = (K - 1) (mean L_k - L)
      L_k - L = log(1 - p_k) + log(K / (K - 1)),  p_k = w_k / sum w

    The delta method (s / m^2 - 1) / K, of mean weight m and mean squared weight
    s, is the limit of both (minus twice the bias) for large K; at small K it
    takes the largest p_k for smaller than they are.

    The T largest weights count exactly. Of the others, of which each p_k is at
    most 1 / (T + 1), log(1 - p) is taken to the third order, with sum p^3 as if
    they were equal.

    Args:
      largest: the T largest log weights `[B, T]`.
      log_sum, log_sum_of_squares: of all K weights, `[B]`.
      num_samples: K. Of one weight, both results are NaN.
    """
    if num_samples == 1:
        return (np.full(len(log_sum), np.nan),) * 2
    share = np.exp(np.asarray(largest, np.float64) - log_sum[:, np.newaxis])
    share = np.minimum(share, 1 - RESOLUTION)
    logs = np.log1p(-share)
    # sum p, sum p^2 and sum p^3 of the others.
    first = np.maximum(1 - share.sum(1), 0)
    second = np.exp(log_sum_of_squares - 2 * log_sum) - (share**2).sum(1)
    second = (
        np.maximum(second, 0) if share.shape[1] < num_samples else 0 * first
    )
    third = second**2 / np.maximum(first, RESOLUTION)
    mean = (logs.sum(1) - first - second / 2 - third / 3) / num_samples
    mean_square = ((logs**2).sum(1) + second + third) / num_samples
    variance = (num_samples - 1) * np.maximum(mean_square - mean**2, 0)
    bias = (num_samples - 1) * (mean - math.log1p(-1 / num_samples))
    return variance, bias


def bootstrap(
    values: np.ndarray, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """An interval for the mean of what values `[N]` were drawn from: quantiles
    of the means of 2,000 draws of N of them with replacement (Efron 1979, the
    percentile method). None of one value.

    Args:
      values: of N images, independent of each other.
      seed: of the draws.
      level: share of the means between the ends.
    """
    count = len(values)
    if count < 2:
        return None
    words = key("bootstrap", seed).numpy().view(np.uint64)
    generator = np.random.Generator(np.random.Philox(key=words))
    rows = max(1, NUMBERS_AT_ONCE // count)
    means = np.concatenate(
        [
            values[
                generator.integers(
                    0, count, (min(rows, RESAMPLES - done), count)
                )
            ].mean(1)
            for done in range(0, RESAMPLES, rows)
        ]
    )
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def averages(
    log_p: np.ndarray, variance: np.ndarray, bias: np.ndarray | None
) -> dict[str, Any]:
    """Estimates of log p(x) over images, `[N]` each, with their errors.

    Args:
      log_p: the estimates, in nats.
      variance, bias: of each, by the jackknife, NaN or None where unknown.

    Returns:
      A dict of `num_examples`; `log_marginal_likelihood`, in nats per image;
      `standard_error` of it over images, None of one image;
      `monte_carlo_standard_error`, of the estimator, and `monte_carlo_bias`, by
      how much it is off on average, below 0, each None where one draw cannot
      show it; `log_marginal_likelihood_interval`, [lower, upper], 95% by the
      bootstrap over images, None of one image.
    """
    count = len(log_p)
    interval = bootstrap(log_p)
    known = not np.isnan(variance).any()
    return {
        "num_examples": count,
        "log_marginal_likelihood": float(log_p.mean()),
        "standard_error": float(log_p.std(ddof=1) / math.sqrt(count))
        if count > 1
        else None,
        "monte_carlo_standard_error": float(np.sqrt(variance.sum()) / count)
        if known
        else None,
        "log_marginal_likelihood_interval": interval and list(interval),
        "monte_carlo_bias": float(bias.mean())
        if known and bias is not None
        else None,
    }
