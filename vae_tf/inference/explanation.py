"""One image's ELBO taken apart, in both languages."""

from typing import NamedTuple

import numpy as np

from vae_tf import objectives
from vae_tf.decoder import log_prob_of_pixels
from vae_tf.inference import gaps
from vae_tf.noise import key, standard_normal
from vae_tf.settings import UserError
from vae_tf.vae import VAE

PIXELS_SHOWN = 3
DIMENSIONS_SHOWN = 5


class Quantity(NamedTuple):
    """A number in nats, under both of its names."""

    network: str  # in neural-network language
    probability: str  # in probability language
    value: float
    error: float  # Monte Carlo standard error; 0 of a closed form


class Explanation(NamedTuple):
    """What `explain` has found of one image; `str` makes a table of it."""

    image: np.ndarray  # x, [H, W, C]
    reconstruction: np.ndarray  # the mean of p(x|z) at that of q(z|x)
    quantities: tuple[Quantity, ...]
    kl_per_dimension: np.ndarray | None  # [D], nats, where q and p factorise
    pixel_cost: np.ndarray | None  # -E_q[log p(x_i|z)], [H, W, C], nats
    num_samples: int
    gaps: gaps.Gaps  # of this image

    def __str__(self):
        wide = max(len(one.network) for one in self.quantities)
        lines = [
            f"{'neural networks':{wide}}  {'nats':>9}  {'± s.e.':>7}  "
            "probability"
        ]
        for one in self.quantities:
            error = f"{one.error:7.3f}" if one.error else "  exact"
            lines.append(
                f"{one.network:{wide}}  {one.value:9.3f}  {error}  "
                f"{one.probability}"
            )
        if self.kl_per_dimension is not None:
            order = np.argsort(self.kl_per_dimension)[::-1]
            shown = ", ".join(
                f"z{d + 1} {self.kl_per_dimension[d]:.2f}"
                for d in order[:DIMENSIONS_SHOWN]
            )
            rest = self.kl_per_dimension[order[DIMENSIONS_SHOWN:]]
            more = f", {len(rest)} others {rest.sum():.2f}" * bool(len(rest))
            lines.append(f"KL by latent dimension: {shown}{more}")
        if self.pixel_cost is not None:
            cost = self.pixel_cost.sum(-1)
            worst = np.argsort(cost, axis=None)[::-1][:PIXELS_SHOWN]
            rows, columns = np.unravel_index(worst, cost.shape)
            shown = ", ".join(
                f"row {row + 1} column {column + 1} {cost[row, column]:.2f}"
                for row, column in zip(rows, columns, strict=True)
            )
            lines.append(f"pixels that cost most: {shown}")
        return "\n".join(lines)


def explain(
    vae: VAE, image, num_samples: int = 1000, seed: int = 0
) -> Explanation:
    """One image's ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)), what its parts
    are made of, and what separates it from log p(x) (`inference_gaps`).

    Args:
      vae: a trained model.
      image: x `[H, W, C]` or `[1, H, W, C]`.
      num_samples: K >= 25, draws of z.
      seed: of the draws.

    Raises:
      UserError: as `inference_gaps`, or it is not one image.
    """
    shape = vae.decoder.image_shape
    if np.shape(image) not in (shape, (1, *shape)):
        raise UserError(
            f"image: expected one of shape {shape}, received shape "
            f"{np.shape(image)}."
        )
    images = vae.check_images(np.reshape(image, (1, *shape)))
    found = gaps.inference_gaps(vae, images, None, num_samples, seed)
    noise = standard_normal(
        (num_samples, 1, vae.encoder.latent_dim), key("elbo", seed)
    )
    draws = vae.draws(images, noise)
    terms = objectives.elbo(draws)
    exact = objectives.exact_kl(draws.posterior, draws.prior)

    def error(values) -> float:
        return float(np.std(values, ddof=1) / num_samples**0.5)

    log_ratio = draws.log_q - draws.log_prior
    kl_error = 0.0 if exact is not None else error(log_ratio)
    elbo_error = error(
        draws.log_likelihood - (0.0 if exact is not None else log_ratio)
    )
    quantities = (
        Quantity(
            "- reconstruction loss",
            "E_q[log p(x|z)]",
            float(terms.reconstruction[0]),
            error(draws.log_likelihood),
        ),
        Quantity(
            "regulariser", "KL(q(z|x) || p(z))", float(terms.kl[0]), kl_error
        ),
        Quantity("- loss", "ELBO", float(terms.elbo[0]), elbo_error),
        Quantity(
            "what a better encoder would gain",
            "amortization gap",
            float(found.amortization[0]),
            float(found.amortization_error[0]),
        ),
        Quantity(
            "what a richer code distribution would gain",
            "approximation gap",
            float(found.approximation[0]),
            float(found.approximation_error[0]),
        ),
        Quantity(
            "- loss of a perfect encoder",
            "log p(x)",
            float(found.log_marginal_likelihood[0]),
            float(found.log_marginal_likelihood_error[0]),
        ),
    )
    factorizes = vae.encoder.factorizes and vae.prior.factorizes
    return Explanation(
        image=images[0].numpy(),
        reconstruction=vae(images)[0].numpy(),
        quantities=quantities,
        kl_per_dimension=objectives.kl_per_dimension(
            draws.posterior, draws.prior
        )[0].numpy()
        if factorizes
        else None,
        pixel_cost=_pixel_cost(vae, images, draws.z),
        num_samples=num_samples,
        gaps=found,
    )


def _pixel_cost(vae, images, z) -> np.ndarray | None:
    """-E_q[log p(x_i|z)] of each pixel `[H, W, C]`, of draws `[K, 1, D]`; None
    where a likelihood of the user's own does not say it.
    """
    log_p = log_prob_of_pixels(vae.decoder(z), images)  # [K, 1, H, W, C]
    return None if log_p is None else -np.mean(log_p, axis=(0, 1))
