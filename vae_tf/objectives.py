"""What is maximised and what is measured: functions of draws of the latent and
their log weights, in nats.

Every quantity is per example, `[B]`, until an objective averages it. Sums over
pixels and latent dimensions are made by the distributions, which declare their
event axes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

GRADIENT_ESTIMATORS = ("auto", "plain", "stl", "dreg")


class Terms(NamedTuple):
    """The evidence lower bound and its two terms: `elbo = reconstruction - kl`,
    each `[B]`, in nats.
    """

    elbo: tf.Tensor
    reconstruction: tf.Tensor
    kl: tf.Tensor


class Draws(NamedTuple):
    """K draws of z ~ q(z|x) for each image, and the logarithms that every bound
    is made of, in nats.
    """

    posterior: tfd.Distribution  # q(z|x), batch [B], event [D]
    prior: tfd.Distribution  # p(z), batch [], event [D]
    z: tf.Tensor  # [K, B, D]
    log_q: tf.Tensor  # log q(z|x), [K, B]
    log_prior: tf.Tensor  # log p(z), [K, B]
    log_likelihood: tf.Tensor  # log p(x|z), [K, B]
    pathwise: bool  # whether the gradient of log_q goes through z alone

    @property
    def log_weights(self) -> tf.Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x) `[K, B]`: under q(z|x),
        its expectation is the ELBO and that of w is p(x).
        """
        return self.log_likelihood + self.log_prior - self.log_q


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


def log_posterior(posterior: tfd.Distribution, noise: tf.Tensor) -> tf.Tensor:
    """log q(z|x) `[K, B]` at z = T(epsilon), by the change of variables: log
    N(epsilon; 0, I) - log |det dT / depsilon|.

    From the noise, which an autoregressive flow would have to recover from z
    one dimension at a time.
    """
    log_det = posterior.bijector.forward_log_det_jacobian(noise, event_ndims=1)
    return posterior.distribution.log_prob(noise) - log_det


def draw(
    posterior: tfd.Distribution,
    prior: tfd.Distribution,
    noise: tf.Tensor,
    log_likelihood: Callable[[tf.Tensor], tf.Tensor],
    gradient_estimator: str = "plain",
) -> Draws:
    """Draws of z from noise `[K, B, D]`, at which log p(x|z) is evaluated.

    The estimator changes no value, only the paths that gradients take:
      plain: all of them.
      stl: log q(z|x) depends on phi through z alone, because the score that is
        left out has expectation 0 under a single draw; sticking the landing,
        Roeder et al. 2017, arXiv:1703.09194.
      dreg: as stl, and what comes back through z is multiplied by the draw's
        normalised weight, whose square it then carries in the gradient of the
        importance-weighted bound; doubly reparameterised, Tucker et al. 2018,
        arXiv:1810.04152. What p(x|z) and p(z) owe to their own
        parameters, a VampPrior's phi included, keeps the plain weight.

    Args:
      posterior: q(z|x), batch `[B]`, event `[D]`.
      prior: p(z), batch `[]`, event `[D]`.
      noise: standard-normal draws `[K, B, D]`.
      log_likelihood: z `[K, B, D]` -> log p(x|z) `[K, B]`.
      gradient_estimator: "plain", "stl" or "dreg".
    """
    z = reparameterize(posterior, noise)
    pathwise = gradient_estimator != "plain"
    normalised_weights: list[tf.Tensor] = []
    if gradient_estimator == "dreg":
        z = _with_gradient_times(normalised_weights, z)
    if pathwise:
        log_q = detached(posterior).log_prob(z)
    else:
        log_q = log_posterior(posterior, noise)
    draws = Draws(
        posterior,
        prior,
        z,
        log_q,
        prior.log_prob(z),
        log_likelihood(z),
        pathwise,
    )
    normalised_weights.append(tf.nn.softmax(draws.log_weights, axis=0))
    return draws


def _with_gradient_times(weights: list, z: tf.Tensor) -> tf.Tensor:
    """z `[K, B, D]`, with a gradient multiplied by `weights[0]` `[K, B]`, which
    are known only when everything after z is.
    """

    @tf.custom_gradient
    def identity(z):
        return tf.identity(z), lambda dz: dz * weights[0][..., tf.newaxis]

    return identity(z)


def detached(posterior: tfd.Distribution) -> tfd.Distribution:
    """q(z|x) without gradients to the tensors it was made of."""
    tensors = {
        name: tf.stop_gradient(value)
        for name, value in posterior.parameters.items()
        if tf.is_tensor(value)
    }
    return posterior.copy(**tensors)


def kl_divergence(draws: Draws) -> tf.Tensor:
    """KL(q(z|x) || p(z)) = E_q[log q(z|x) - log p(z)] `[B]`, in nats.

    In closed form where there is one (Gaussian pairs), else the average over
    the draws."""
    try:
        return tfd.kl_divergence(draws.posterior, draws.prior)
    except NotImplementedError:
        return tf.reduce_mean(draws.log_q - draws.log_prior, axis=0)


def elbo(draws: Draws) -> Terms:
    """ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x).

    Kingma and Welling 2013, arXiv:1312.6114, equation 3. Its negative is the
    neural-network loss.
    """
    reconstruction = tf.reduce_mean(draws.log_likelihood, axis=0)
    kl = kl_divergence(draws)
    return Terms(reconstruction - kl, reconstruction, kl)


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log (1/K sum_k w_k) `[B]` of log weights `[K, B]`: below log p(x) on
    average, and no looser for larger K.

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519, equation 8.
    """
    return tf.reduce_logsumexp(log_weights, axis=0) - math.log(
        log_weights.shape[0]
    )


def kl_per_dimension(
    posterior: tfd.Distribution, prior: tfd.Distribution
) -> tf.Tensor:
    """KL(q(z_d|x) || p(z_d)) `[B, D]`, in nats, of normals that factorise."""
    return tfd.kl_divergence(_marginals(posterior), _marginals(prior))


def _marginals(normal: tfd.Distribution) -> tfd.Normal:
    return tfd.Normal(normal.mean(), normal.stddev())


class Objective:
    """Base of the objectives: settings, and which gradient is taken.

    Args:
      num_samples: K, draws of z for each image.
      gradient_estimator: "plain", "stl", "dreg" (see `draw`), or "auto": dreg
        for the importance-weighted bound where log q(z|x) at a given z takes
        one pass, else plain. For the ELBO, dreg is stl.
      beta: weight of the KL divergence (Higgins et al. 2017).
      kl_warmup_steps: updates over which that weight rises linearly from 0.
      free_bits: lambda, nats per latent dimension that cost nothing: the KL
        divergence becomes sum_d max(lambda, batch mean of KL_d) (Kingma et al.
        2016, arXiv:1606.04934).

    Raises:
      ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        num_samples=1,
        gradient_estimator="auto",
        beta=1.0,
        kl_warmup_steps=0,
        free_bits=0.0,
    ):
        for name, value, smallest in (
            ("num_samples", num_samples, 1),
            ("beta", beta, 0),
            ("kl_warmup_steps", kl_warmup_steps, 0),
            ("free_bits", free_bits, 0),
        ):
            whole = name in ("num_samples", "kl_warmup_steps")
            if not value >= smallest or (whole and value != int(value)):
                raise ValueError(
                    f"{name}: expected {'an integer' if whole else 'a number'} "
                    f">= {smallest}, received {value!r}."
                )
        if gradient_estimator not in GRADIENT_ESTIMATORS:
            raise ValueError(
                "gradient_estimator: expected one of "
                f"{', '.join(GRADIENT_ESTIMATORS)}, received "
                f"{gradient_estimator!r}."
            )
        self.num_samples = num_samples
        self.gradient_estimator = gradient_estimator
        self.beta = beta
        self.kl_warmup_steps = kl_warmup_steps
        self.free_bits = free_bits

    names: tuple[str, ...]  # of what `bounds` measures, its own bound included
    bound: str  # the one by which epochs are compared

    def estimator(self, one_pass_density: bool) -> str:
        """The gradient estimator, for a posterior whose log q(z|x) at any z is,
        or is not, as fast as a draw.
        """
        raise NotImplementedError

    def bounds(self, draws: Draws) -> dict[str, tf.Tensor]:
        """What is reported: the plain ELBO, its terms and the objective's own
        bound, `[B]` each, in nats.
        """
        raise NotImplementedError

    def __call__(self, draws: Draws, step: tf.Tensor) -> tf.Tensor:
        """What is maximised, averaged over the images; `step` counts the
        updates before this one.
        """
        raise NotImplementedError

    def get_config(self):
        return {
            "num_samples": self.num_samples,
            "gradient_estimator": self.gradient_estimator,
            "beta": self.beta,
            "kl_warmup_steps": self.kl_warmup_steps,
            "free_bits": self.free_bits,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("vae_tf")
class ELBO(Objective):
    """E_q[log p(x|z)] - weight * KL(q(z|x) || p(z)): the evidence lower bound
    where weight is 1 and no bits are free.

    See `Objective` for the settings.
    """

    names = Terms._fields
    bound = "elbo"

    def estimator(self, one_pass_density):
        # With equal weights, the doubly reparameterised gradient is stl's.
        chosen = self.gradient_estimator
        return {"auto": "plain", "dreg": "stl"}.get(chosen, chosen)

    def bounds(self, draws):
        return elbo(draws)._asdict()

    def __call__(self, draws, step):
        weight = self.beta
        if self.kl_warmup_steps:
            done = (tf.cast(step, tf.float32) + 1) / self.kl_warmup_steps
            weight *= tf.minimum(1.0, done)
        reconstruction = tf.reduce_mean(draws.log_likelihood)
        return reconstruction - weight * self._regulariser(draws)

    def _regulariser(self, draws):
        """KL(q(z|x) || p(z)), averaged over the images, with its free bits."""
        if self.free_bits:
            # KL_d, averaged over the images: [D]
            kl = tf.reduce_mean(
                kl_per_dimension(draws.posterior, draws.prior), axis=0
            )
            paid = kl
            if draws.pathwise:
                q, p = detached(draws.posterior), draws.prior
                log_ratio = _marginals(q).log_prob(draws.z) - _marginals(
                    p
                ).log_prob(draws.z)
                paid = tf.reduce_mean(log_ratio, axis=[0, 1])
            return tf.reduce_sum(
                tf.where(kl > self.free_bits, paid, self.free_bits)
            )
        if draws.pathwise:
            return tf.reduce_mean(draws.log_q - draws.log_prior)
        return tf.reduce_mean(kl_divergence(draws))


@keras.saving.register_keras_serializable("vae_tf")
class IWAE(Objective):
    """log (1/K sum_k w_k): the importance-weighted bound, between the ELBO and
    log p(x).

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519. See `Objective` for
    the settings.

    Raises:
      ValueError: a setting of the KL divergence is set, of which this bound has
        none to weigh: it lies inside the logarithm.
    """

    names = (*Terms._fields, "iwae")
    bound = "iwae"

    def __init__(
        self,
        num_samples=5,
        gradient_estimator="auto",
        beta=1.0,
        kl_warmup_steps=0,
        free_bits=0.0,
    ):
        super().__init__(
            num_samples, gradient_estimator, beta, kl_warmup_steps, free_bits
        )
        for name, none in (
            ("beta", 1.0),
            ("kl_warmup_steps", 0),
            ("free_bits", 0.0),
        ):
            if getattr(self, name) != none:
                raise ValueError(
                    f"{name}: expected {none} with objective iwae, whose KL "
                    "divergence lies inside a logarithm and cannot be weighed, "
                    f"received {getattr(self, name)!r}."
                )

    def estimator(self, one_pass_density):
        if self.gradient_estimator != "auto":
            return self.gradient_estimator
        return "dreg" if one_pass_density else "plain"

    def bounds(self, draws):
        bound = importance_weighted_bound(draws.log_weights)
        return elbo(draws)._asdict() | {"iwae": bound}

    def __call__(self, draws, step):
        return tf.reduce_mean(importance_weighted_bound(draws.log_weights))


OBJECTIVES = {"elbo": ELBO, "iwae": IWAE}
