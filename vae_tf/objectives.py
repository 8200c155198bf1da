"""What is maximised and what is measured: functions of draws of the latent and
their log weights, in nats.

Every quantity is per example, `[B]`, until an objective averages it. Sums over
pixels and latent dimensions are made by the distributions, which declare their
event axes."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

GRADIENT_ESTIMATORS = ("auto", "plain", "stl", "dreg")
KL_SCHEDULES = ("linear", "cyclical")
FACTORS_ONLY = (
    "0.0 unless q(z|x) and p(z) factorise, because the KL divergence of a "
    "single dimension is that of factors"
)
CHOICES = dict(gradient_estimator=GRADIENT_ESTIMATORS, kl_schedule=KL_SCHEDULES)


class Terms(NamedTuple):
    """The evidence lower bound, `reconstruction - kl`, `[B]` each, in nats."""

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
    loc + scale * epsilon. Both are `[K, B, D]`, q(z|x) is a batch `[B]`.
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
      posterior, prior: q(z|x), batch `[B]`, and p(z), batch `[]`, event `[D]`.
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
    exact = exact_kl(draws.posterior, draws.prior)
    if exact is None:
        return tf.reduce_mean(draws.log_q - draws.log_prior, axis=0)
    return exact


def exact_kl(
    posterior: tfd.Distribution, prior: tfd.Distribution
) -> tf.Tensor | None:
    """KL(q(z|x) || p(z)) `[B]`, in nats, where it has a closed form."""
    diagonal = tfd.MultivariateNormalDiag
    if isinstance(posterior, diagonal) and isinstance(prior, diagonal):
        # By dimension, of which free bits are made, too: computed once.
        return tf.reduce_sum(kl_per_dimension(posterior, prior), axis=-1)
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        return None


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
    count = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(count)


def kl_per_dimension(
    posterior: tfd.Distribution, prior: tfd.Distribution
) -> tf.Tensor:
    """KL(q(z_d|x) || p(z_d)) `[B, D]`, in nats, of normals that factorise."""
    return tfd.kl_divergence(_marginals(posterior), _marginals(prior))


def _marginals(normal: tfd.Distribution) -> tfd.Normal:
    return tfd.Normal(normal.mean(), normal.stddev())


class Annealed:
    """A number that a compiled step reads anew, from `objective.values`."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, objective, owner=None):
        # 0.1 and not 0.10000000149: the shortest that float32 rounds so.
        return float(str(objective.values[self.name].numpy()))

    def __set__(self, objective, value):
        objective.check(self.name, value)
        objective.values[self.name].assign(value)


class Objective(tf.Module):
    """Base of the objectives: settings, and which gradient is taken.

    `beta` and `free_bits` may be set while a model trains, by a callback for
    example: a compiled step reads them anew. They are saved with the model, in
    its configuration and in `tf.train.Checkpoint`s.

    Args:
      num_samples: K, draws of z for each image.
      gradient_estimator: "plain", "stl", "dreg" (see `draw`), or "auto": dreg
        for the importance-weighted bound where log q(z|x) at a given z takes
        one pass and p(z) is not made of q(z|x), else plain. For the ELBO, dreg
        is stl.
      beta: weight of the KL divergence (Higgins et al. 2017).
      kl_warmup_steps: W, updates over which that weight rises linearly, from
        beta / W in the first update to beta.
      kl_schedule: "linear", which rises once; "cyclical", which rises over W
        updates, stays for W, and starts again (Fu et al. 2019,
        arXiv:1903.10145, with R = 1/2).
      free_bits: lambda, nats per latent dimension that cost nothing: the KL
        divergence becomes sum_d max(lambda, batch mean of KL_d) (Kingma et al.
        2016, arXiv:1606.04934).

    Raises:
      ValueError: a setting is out of its range, or (also when it is set later)
        one that this objective or the families of its model cannot have.
    """

    factorizes: bool | None = None  # q(z|x) and p(z), when a VAE has said so
    names: tuple[str, ...]  # of what `bounds` measures, its own bound included
    bound: str  # the one by which epochs are compared
    beta = Annealed()
    free_bits = Annealed()

    def __init__(
        self,
        num_samples=1,
        gradient_estimator="auto",
        beta=1.0,
        kl_warmup_steps=0,
        kl_schedule="linear",
        free_bits=0.0,
    ):
        super().__init__()
        self.num_samples = num_samples
        self.gradient_estimator = gradient_estimator
        self.kl_warmup_steps = kl_warmup_steps
        self.kl_schedule = kl_schedule
        for name, least in (("num_samples", 1), ("kl_warmup_steps", 0)):
            value = getattr(self, name)
            whole = value >= least and value == int(value)
            _require(whole, name, f"an integer >= {least}", value)
        for name, choices in CHOICES.items():
            words, value = f"one of {', '.join(choices)}", getattr(self, name)
            _require(value in choices, name, words, value)
        self.values = {
            name: tf.Variable(0.0, trainable=False, name=name)
            for name in ("beta", "free_bits")
        }
        self.beta, self.free_bits = beta, free_bits
        self.begins_free = free_bits > 0

    def check(self, name: str, value) -> None:
        """Raises ValueError unless `beta` or `free_bits` can be `value`."""
        fine = 0 <= value < float("inf")
        _require(fine, name, "a finite number >= 0", value)
        if name == "free_bits" and self.factorizes is False:
            _require(value == 0, name, FACTORS_ONLY, value)

    def estimator(self, one_pass_density: bool, shared: bool = False) -> str:
        """The gradient estimator for a log q(z|x) that at any z is, or is not,
        as fast as a draw, and a p(z) that is, or is not, made of q(z|x).
        """
        raise NotImplementedError

    def bounds(self, draws: Draws) -> dict[str, tf.Tensor]:
        """What is reported: the plain ELBO, its terms and the objective's own
        bound, `[B]` each, in nats.
        """
        raise NotImplementedError

    def __call__(
        self,
        draws: Draws,
        step: tf.Tensor,
        everywhere: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    ) -> tf.Tensor:
        """What is maximised, averaged over the images; `step` counts the
        updates before this one, and `everywhere` makes an average over these
        images one over those of all devices.
        """
        raise NotImplementedError

    def get_config(self):
        names = inspect.signature(Objective.__init__).parameters
        return {n: getattr(self, n) for n in names if n != "self"}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("vae_tf")
class ELBO(Objective):
    """E_q[log p(x|z)] - weight * KL(q(z|x) || p(z)): the evidence lower bound
    where weight is 1 and no bits are free. See `Objective` for the settings.
    """

    names = Terms._fields
    bound = "elbo"

    def estimator(self, one_pass_density, shared=False):
        # With equal weights, the doubly reparameterised gradient is stl's.
        chosen = self.gradient_estimator
        return {"auto": "plain", "dreg": "stl"}.get(chosen, chosen)

    def bounds(self, draws):
        return elbo(draws)._asdict()

    def __call__(self, draws, step, everywhere=tf.identity):
        reconstruction = tf.reduce_mean(draws.log_likelihood)
        return reconstruction - self.kl_weight(step) * self._regulariser(
            draws, everywhere
        )

    def kl_weight(self, step: tf.Tensor) -> tf.Tensor:
        """Weight of the KL divergence in the update after `step` of them."""
        if not self.kl_warmup_steps:
            return tf.convert_to_tensor(self.values["beta"])
        if self.kl_schedule == "cyclical":
            step = step % (2 * self.kl_warmup_steps)
        done = (tf.cast(step, tf.float32) + 1) / self.kl_warmup_steps
        return self.values["beta"] * tf.minimum(1.0, done)

    def _regulariser(self, draws, everywhere):
        """KL(q(z|x) || p(z)), averaged over the images, with its free bits."""
        if self.begins_free if self.factorizes is None else self.factorizes:
            kl = kl_per_dimension(draws.posterior, draws.prior)
            even = tf.ones_like(kl[:, 0]) / tf.cast(tf.shape(kl)[0], tf.float32)
            # Averaged over the images, [D]; XLA is slower at sums of columns.
            kl = tf.linalg.matvec(kl, even, transpose_a=True)
            paid = kl
            if draws.pathwise:
                q, p = map(_marginals, (detached(draws.posterior), draws.prior))
                log_ratio = q.log_prob(draws.z) - p.log_prob(draws.z)
                paid = tf.reduce_mean(log_ratio, axis=[0, 1])
            free = tf.convert_to_tensor(self.values["free_bits"])
            return tf.reduce_sum(tf.where(everywhere(kl) >= free, paid, free))
        if draws.pathwise:
            return tf.reduce_mean(draws.log_q - draws.log_prior)
        return tf.reduce_mean(kl_divergence(draws))


@keras.saving.register_keras_serializable("vae_tf")
class IWAE(Objective):
    """log (1/K sum_k w_k): the importance-weighted bound, between the ELBO and
    log p(x).

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519. See `Objective` for
    the settings, of which it has none that weigh the KL divergence: that lies
    inside the logarithm.
    """

    names = (*Terms._fields, "iwae")
    bound = "iwae"

    def __init__(self, num_samples=5, gradient_estimator="auto", **weights):
        super().__init__(num_samples, gradient_estimator, **weights)
        self._no_weight("kl_warmup_steps", self.kl_warmup_steps, 0)

    def check(self, name, value):
        super().check(name, value)
        self._no_weight(name, value, 1.0 if name == "beta" else 0.0)

    def _no_weight(self, name, value, none):
        words = (
            f"{none} with objective iwae, whose KL divergence lies inside a "
            "logarithm and cannot be weighed"
        )
        _require(value == none, name, words, value)

    def estimator(self, one_pass_density, shared=False):
        if self.gradient_estimator != "auto":
            return self.gradient_estimator
        # Where p(z) is made of q(z|x), dreg's variance is no smaller.
        return "dreg" if one_pass_density and not shared else "plain"

    def bounds(self, draws):
        bound = importance_weighted_bound(draws.log_weights)
        return elbo(draws)._asdict() | {"iwae": bound}

    def __call__(self, draws, step, everywhere=tf.identity):
        return tf.reduce_mean(importance_weighted_bound(draws.log_weights))


def _require(fine: bool, name: str, expected: str, value) -> None:
    if not fine:
        raise ValueError(f"{name}: expected {expected}, received {value!r}.")


OBJECTIVES = {"elbo": ELBO, "iwae": IWAE}
