"""How far the ELBO is below log p(x), and why: because no member of q's family
is p(z|x), or because the encoder does not give the best member.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.encoder import Encoder
from vae_tf.evaluation import pareto
from vae_tf.inference import weights
from vae_tf.inference.families import FAMILIES
from vae_tf.inference.local import STARTS, Local, infer
from vae_tf.posteriors import Flow
from vae_tf.settings import UserError
from vae_tf.vae import VAE


class Gaps(NamedTuple):
    """Of N images, `[N]` each, in nats; errors are of Monte Carlo."""

    elbo: np.ndarray  # of q(z|x), amortized
    refined_elbo: np.ndarray  # of the best q of the family
    log_marginal_likelihood: np.ndarray  # from draws of that q
    log_marginal_likelihood_error: np.ndarray
    amortization: np.ndarray  # refined ELBO - ELBO
    amortization_error: np.ndarray
    approximation: np.ndarray  # log p(x) - refined ELBO
    approximation_error: np.ndarray
    pareto_k: np.ndarray  # k-hat of log p(x)'s weights
    local: Local  # that q

    def arrays(self) -> dict[str, np.ndarray]:
        """What there is of each image, `[N]`, by name."""
        found = self._asdict()
        del found["local"]
        return found | {"num_steps": self.local.num_steps}

    def summary(self) -> dict[str, Any]:
        """Averages over images. Their standard errors are over images, and
        carry Monte Carlo with it: what an image's figures are off by is in
        their spread. None of one image.
        """
        count = len(self.elbo)
        found: dict[str, Any] = {
            "family": self.local.family,
            "num_examples": count,
        }
        for name in (
            "elbo",
            "refined_elbo",
            "log_marginal_likelihood",
            "amortization",
            "approximation",
        ):
            values = getattr(self, name)
            found[name] = float(values.mean())
            found[f"{name}_standard_error"] = (
                float(values.std(ddof=1) / math.sqrt(count))
                if count > 1
                else None
            )
        for name in ("amortization", "approximation"):
            error = getattr(self, f"{name}_error")
            found[f"{name}_monte_carlo_standard_error"] = float(
                np.sqrt(np.sum(error**2)) / count
            )
        return found | {
            "converged": float(self.local.converged.mean()),
            "mean_num_steps": float(self.local.num_steps.mean()),
            f"pareto_k_over_{pareto.UNRELIABLE}": float(
                np.mean(self.pareto_k > pareto.UNRELIABLE)
            ),
        }


def inference_gaps(
    vae: VAE,
    images,
    family: str | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    verbose: int = 0,
) -> Gaps:
    """log p(x) - ELBO = approximation gap + amortization gap, for each image:

      approximation gap = log p(x) - max over q of ELBO(q; x)
      amortization gap  = max over q of ELBO(q; x) - ELBO(q(z|x); x)

    with q of one family (Cremer, Li and Duvenaud 2018, arXiv:1801.03558). The
    maximum is `infer`'s from the encoder or, in at most two latent dimensions,
    where p(z|x) may have parts far from q(z|x), from the prior, if that is
    higher. log p(x) is importance-weighted, with draws of that q and less its
    bias; both ELBOs have the same noise.

    Args:
      vae: a trained model.
      images: x `[N, H, W, C]`.
      family: of q, a name of `inference.families.FAMILIES`; None for that of
        the encoder. Another one's amortization gap holds what it is richer by.
      num_samples: K >= 25, draws of each ELBO and of log p(x). Memory: K N
        numbers.
      seed: of the draws.
      verbose: 1 shows a progress bar.

    Raises:
      UserError: as `infer`; K is below 25; or the encoder has no family.
    """
    if type(num_samples) is not int or not pareto.tail_length(num_samples):
        raise UserError(
            "num_samples: expected an integer >= 25, whose error can be told, "
            f"received {num_samples!r}."
        )
    check(vae)
    images = vae.check_images(images)
    near = vae.encoder.latent_dim <= 2
    local = functools.reduce(
        Local.or_better,
        (
            infer(
                vae,
                images,
                family or family_of(vae),
                start,
                num_samples=num_samples,
                seed=seed,
                verbose=verbose,
            )
            for start in (STARTS if near else STARTS[:1])
        ),
    )
    amortized = family_of(vae)
    before = weights.log_weights(
        vae,
        images,
        amortized,
        FAMILIES[amortized].start(vae.encoder(images)),
        num_samples,
        seed,
    )
    after = weights.log_weights(
        vae, images, local.family, local.parameters, num_samples, seed
    )
    found = weights.estimate(
        vae, images, local.family, local.parameters, num_samples, seed
    )
    log_p = found.log_marginal_likelihood - found.bias
    return Gaps(
        before.mean(0),
        after.mean(0),
        log_p,
        np.sqrt(found.variance),
        (after - before).mean(0),
        _error(after - before),
        log_p - after.mean(0),
        np.sqrt(found.variance + _error(after) ** 2),
        np.asarray(found.pareto_k),
        local,
    )


def _error(draws: np.ndarray) -> np.ndarray:
    """Standard error of the mean over K draws `[K, N]`."""
    return draws.std(0, ddof=1) / math.sqrt(len(draws))


def check(vae: VAE) -> None:
    """Raises UserError unless there is an encoder of a family that is known."""
    if not isinstance(vae.encoder, Encoder):
        raise UserError(
            "inference_gaps: expected a model with an encoder, received one "
            "whose q(z|x) is a table, with parameters of each image's own: "
            "there is no amortization gap."
        )
    family_of(vae)


def family_of(vae: VAE) -> str:
    """The family of an encoder's q(z|x), a name of `FAMILIES`.

    Raises:
      UserError: it is none of them.
    """
    posterior = vae.encoder(tf.zeros((1, *vae.decoder.image_shape)))
    for name, kind in (
        ("mean_field", tfd.MultivariateNormalDiag),
        ("full_covariance", tfd.MultivariateNormalTriL),
        ("iaf", Flow),
    ):
        if isinstance(posterior, kind):
            return name
    raise UserError(
        f"posterior: expected one of {', '.join(FAMILIES)}, received "
        f"{type(posterior).__name__}."
    )
