"""log p(x) and p(z|x) in closed form, where the model is linear and normal."""

import math
from typing import NamedTuple

import numpy as np

from vae_tf.settings import UserError


class LinearGaussian(NamedTuple):
    """log p(x) in nats, and p(z|x) = N(z; loc, covariance)."""

    log_marginal_likelihood: np.ndarray  # [N]
    loc: np.ndarray  # [N, D]
    covariance: np.ndarray  # [D, D], the same for every x


def linear_gaussian(images, weights, offset, scale: float) -> LinearGaussian:
    """The model p(z) = N(z; 0, I), p(x|z) = N(x; W z + b, s^2 I), exactly
    (Tipping and Bishop 1999, probabilistic principal component analysis):

      log p(x) = log N(x; b, W W^T + s^2 I)
      p(z|x) = N(z; M^-1 W^T (x - b) / s^2, M^-1),  M = I + W^T W / s^2

    in float64, at the cost of matrices D x D (by the lemmas of Woodbury and
    Sylvester).

    Args:
      images: x `[N, P]`, or `[N, H, W, C]` with H W C = P.
      weights: W `[P, D]`.
      offset: b, of P numbers.
      scale: s > 0.
    """
    weights = np.asarray(weights, np.float64)
    pixels, latent = weights.shape
    if not scale > 0:
        raise UserError(f"scale: expected a number > 0, received {scale!r}.")
    residual = np.reshape(np.asarray(images, np.float64), (-1, pixels))
    residual = residual - np.reshape(np.asarray(offset, np.float64), -1)
    precision = np.eye(latent) + weights.T @ weights / scale**2  # M
    covariance = np.linalg.inv(precision)
    loc = residual @ weights / scale**2 @ covariance
    # (W W^T + s^2 I)^-1 r = (r - W E[z|x]) / s^2, and
    # log det (W W^T + s^2 I) = P log s^2 + log det M.
    distance = np.sum(residual * (residual - loc @ weights.T), -1) / scale**2
    log_det = pixels * math.log(scale**2) + np.linalg.slogdet(precision)[1]
    log_p = -0.5 * (distance + log_det + pixels * math.log(2 * math.pi))
    return LinearGaussian(log_p, loc, covariance)
