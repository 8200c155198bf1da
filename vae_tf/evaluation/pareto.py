"""How far the largest of some importance weights can be trusted: the shape k of
their tail.
"""

import math

import numpy as np

MIN_DRAWS = 25  # K below which no tail is fitted: it would have 4 weights
UNRELIABLE = 0.7  # above, averages of weights converge too slowly to be used


def tail_length(num_samples: int) -> int:
    """M, how many of K weights are the tail: min(K / 5, 3 sqrt(K)), rounded up
    (Vehtari et al. 2024, arXiv:1507.02646, appendix H); 0 where K < 25.
    """
    if num_samples < MIN_DRAWS:
        return 0
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def shape(largest: np.ndarray, num_samples: int) -> np.ndarray:
    """k-hat `[B]` of the generalised Pareto distribution

      P(w - u > y | w > u) ~ (1 + k y / scale)^(-1/k)

    of the excesses of the M largest of K weights over the next one, u; k = 0 is
    an exponential tail, k < 0 one that ends. Weights have 1/k moments: with k <
    1/2 their variance is finite; up to 0.7 their average is still of use at
    practical K; above, neither it nor its stated error is (Vehtari et al. 2024,
    arXiv:1507.02646).

    The fit is the posterior mean of Zhang and Stephens 2009 (Technometrics
    51(3), where k has the other sign), pulled to 1/2 as by 10 weights more, as
    Vehtari et al. do.

    Args:
      largest: the M + 1 largest log weights of each image or more, `[B, T]`,
        in descending order.
      num_samples: K.

    Returns:
      NaN where K < 25 or a weight is NaN or infinite, -inf where the tail has
        no length: M + 1 equal weights.
    """
    count = tail_length(num_samples)
    if not count:
        return np.full(len(largest), np.nan)
    logs = np.asarray(largest, np.float64)[:, : count + 1]
    fine = np.all(logs < np.inf, axis=1) & (logs[:, 0] > -np.inf)  # NaN: False
    logs = np.where(fine[:, np.newaxis], logs, 0)
    # Relative to the largest, which changes the scale and not the shape.
    weights = np.exp(logs - logs[:, :1])
    excesses = (weights[:, :-1] - weights[:, -1:])[:, ::-1]  # ascending
    spread = excesses[:, -1] > 0
    k = np.full(len(logs), -np.inf)
    k[spread] = _fit(excesses[spread])
    return np.where(fine, k, np.nan)


def _fit(y: np.ndarray) -> np.ndarray:
    """k-hat `[B]` of ascending excesses `[B, M]`, of which the last is > 0."""
    count = y.shape[1]
    # With theta = -k / scale the likelihood's best k is known, k(theta) = mean
    # log(1 - theta y): what is left is a posterior over theta, on a grid.
    size = 30 + math.isqrt(count)
    quartile = y[:, int(count / 4 + 0.5) - 1]
    # Of weights many of which are equal, the smallest excess that there is.
    smallest = np.min(np.where(y > 0, y, np.inf), axis=1)
    quartile = np.maximum(quartile, smallest)[:, np.newaxis]
    steps = 1 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))
    theta = 1 / y[:, -1:] + steps / (3 * quartile)  # [B, size]

    def k_of(theta):  # [B, S] -> [B, S]
        return np.mean(
            np.log1p(-theta[:, :, np.newaxis] * y[:, np.newaxis]), axis=2
        )

    k = k_of(theta)
    log_likelihood = count * (np.log(-theta / k) - k - 1)
    log_likelihood -= log_likelihood.max(axis=1, keepdims=True)
    posterior = np.exp(log_likelihood)
    posterior /= posterior.sum(axis=1, keepdims=True)
    best = np.sum(posterior * theta, axis=1, keepdims=True)
    k = k_of(best)[:, 0]
    return (count * k + 10 * 0.5) / (count + 10)
