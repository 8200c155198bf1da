"""What is maximised and what is measured: pure functions of distributions and
log weights, in nats.

Every quantity is per example, `[B]`; only a metric averages. Sums over pixels
and latent dimensions are made by the distributions, which declare their event
axes."""

import math
from typing import NamedTuple

import tensorflow as tf
from tensorflow_probability import distributions as tfd


class ELBO(NamedTuple):
    """The evidence lower bound and its two terms: `elbo = reconstruction - kl`,
    each `[B]`, in nats.
    """

    elbo: tf.Tensor
    reconstruction: tf.Tensor
    kl: tf.Tensor


def reparameterize(posterior: tfd.Distribution, noise: tf.Tensor) -> tf.Tensor:
    """z = T(epsilon) ~ q(z|x) for epsilon ~ N(0, I): a deterministic,
    differentiable function of the noise.

    Kingma and Welling 2013, arXiv:1312.6114, section 2.4; for a Gaussian, z =
    loc + scale * epsilon.

    Args:
      posterior: q(z|x), batch `[B]`, event `[D]`.
      noise: standard-normal draws `[K, B, D]`.

    Returns:
      z `[K, B, D]`.
    """
    return posterior.bijector.forward(noise)


def kl_divergence(
    posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor
) -> tf.Tensor:
    """KL(q(z|x) || p(z)) = E_q[log q(z|x) - log p(z)] `[B]`, in nats.

    In closed form where there is one (Gaussian pairs), else the average over
    the samples z `[K, B, D]`."""
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        return tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), axis=0)


def elbo(
    images: tf.Tensor,
    z: tf.Tensor,
    posterior: tfd.Distribution,
    likelihood: tfd.Distribution,
    prior: tfd.Distribution,
) -> ELBO:
    """ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x).

    Kingma and Welling 2013, arXiv:1312.6114, equation 3. Its negative is the
    neural-network loss.

    Args:
      images: x `[B, H, W, C]`.
      z: draws of q(z|x), `[K, B, D]`; the expectation is their average.
      posterior: q(z|x), batch `[B]`, event `[D]`.
      likelihood: p(x|z), batch `[K, B]`, event `[H, W, C]`.
      prior: p(z), batch `[]`, event `[D]`.
    """
    reconstruction = tf.reduce_mean(
        likelihood.log_prob(images), axis=0
    )  # [K, B] -> [B]
    kl = kl_divergence(posterior, prior, z)
    return ELBO(reconstruction - kl, reconstruction, kl)


def log_importance_weights(
    log_likelihood: tf.Tensor,
    z: tf.Tensor,
    posterior: tfd.Distribution,
    prior: tfd.Distribution,
) -> tf.Tensor:
    """log w = log p(x|z) + log p(z) - log q(z|x) `[K, B]`, in nats, from log
    p(x|z) `[K, B]` and z `[K, B, D]`.

    Under q(z|x), the expectation of log w is the ELBO and that of w is p(x).
    """
    return log_likelihood + prior.log_prob(z) - posterior.log_prob(z)


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log (1/K sum_k w_k) `[B]` of log weights `[K, B]`: below log p(x) on
    average, and no looser for larger K.

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519, equation 8.
    """
    return tf.reduce_logsumexp(log_weights, axis=0) - math.log(
        log_weights.shape[0]
    )
