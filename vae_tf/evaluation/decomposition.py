"""What the ELBO is made of, in nats: reconstruction, what z tells of which
image it came from, and how far the codes together are from the prior.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.evaluation import aggregate_posterior
from vae_tf.evaluation.compiled import compiled
from vae_tf.noise import key, standard_normal
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

ROWS_AT_ONCE = 2048  # draws of z decoded together
ACTIVE = 0.01  # Var_x(E_q[z_d]) above which a unit is active


class Decomposition(NamedTuple):
    """Per image, `[N]`, and per latent dimension, `[D]`, in nats but for the
    last.
    """

    reconstruction: np.ndarray  # [N]
    kl: np.ndarray  # [N]
    mutual_information: np.ndarray  # [N], NaN without the aggregate posterior
    marginal_kl: np.ndarray  # [N], likewise
    kl_per_dimension: np.ndarray | None  # [D], where q and p factorise
    code_variance: np.ndarray  # [D], Var_x(E_q[z_d]); NaN of one image


def decompose(
    vae: VAE,
    dataset: tf.data.Dataset,
    num_samples: int = 1,
    seed: int = 0,
    aggregate: bool = True,
    verbose: int = 0,
) -> Decomposition:
    """The ELBO of N images, taken apart (Hoffman and Johnson 2016, "ELBO
    surgery"): on average over n = 1 .. N,

      ELBO = E_q[log p(x_n|z)] - KL(q(z|x_n) || p(z))
           = reconstruction - mutual information - marginal KL
      mutual information = E_q[log q(z|x_n) - log q(z)]
      marginal KL = E_q[log q(z) - log p(z)] = KL(q(z) || p(z))
      q(z) = 1/N sum_m q(z|x_m), the aggregate posterior,

    from M draws of each q(z|x_n). The first is that of z and the index n, drawn
    uniformly: 0 where all posteriors are equal, and log N, its bound at every
    draw, where none overlap. Of these N images both are without bias. Of the
    distribution that they were drawn from, the mutual information of z and x is
    underestimated (Poole et al. 2019, arXiv:1905.06922, section 2, InfoNCE with
    a known conditional density), without limit where it is above log N, and the
    marginal KL overestimated by as much.

    KL(q(z|x) || p(z)) is in closed form where there is one; the marginal KL is
    what the mutual information leaves of it.

    Memory: the N M draws of z and their densities, 4 D + 12 bytes each, and one
    batch. Time: N M decodings, N encodings twice, and N^2 M densities.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`, the same at each pass.
      num_samples: M.
      seed: of the draws; the result is a function of it.
      aggregate: whether q(z) is wanted.
      verbose: 1 shows a progress bar.

    Raises:
      UserError: `num_samples` is below 1, the dataset is empty or an image is
        not what `VAE.check_images` expects, or q(z) is wanted of a posterior
        whose density takes D passes.
    """
    if type(num_samples) is not int or num_samples < 1:
        raise UserError(
            f"num_samples: expected an integer >= 1, received {num_samples!r}."
        )
    if len(dataset) == 0:
        raise UserError(NO_IMAGES)
    if aggregate:
        aggregate_posterior.check(vae)
    bar = keras.utils.Progbar(len(dataset) * (1 + aggregate), verbose=verbose)
    batches: list[dict[str, np.ndarray]] = []
    for images in dataset:
        first = sum(len(batch["kl"]) for batch in batches)
        images = vae.check_images(images)
        batches.append(_drawn(vae, images, num_samples, seed, first))
        bar.add(1)
    parts = {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }
    z, log_q = parts["z"], parts["log_q"]  # [N, M, D], [N, M]
    count = len(z)
    information: np.ndarray = np.full(count, np.nan)
    if aggregate:
        # I_n = E_q[log q(z|x_n) - log q(z)]
        log_aggregate = aggregate_posterior.log_density(
            vae, dataset, z, lambda: bar.add(1)
        )
        information = (log_q - log_aggregate).mean(axis=1)
    per_dimension = parts.get("kl_per_dimension")
    return Decomposition(
        parts["reconstruction"],
        parts["kl"],
        information,
        parts["kl"] - information,
        None if per_dimension is None else per_dimension.mean(0),
        parts["mean"].var(axis=0, ddof=1)
        if count > 1
        else np.full(z.shape[-1], np.nan),
    )


def summary(
    found: Decomposition,
    image_shape: tuple[int, ...],
    levels: int | None = None,
    log_marginal_likelihood: np.ndarray | None = None,
) -> dict[str, Any]:
    """Averages over images.

    Args:
      found: of N images.
      image_shape, levels: see `bits_per_dimension`.
      log_marginal_likelihood: log p(x) `[N]`, where it was measured.

    Returns:
      A dict of `num_examples`; `elbo`; in the language of coding (Alemi et al.
      2018, arXiv:1711.00464, section 2) `distortion`, minus the reconstruction,
      and `rate`, the KL, in nats per image; `mutual_information`, at most
      `max_mutual_information`, log N, and `marginal_kl`, whose sum is the rate,
      None where they were not wanted; under `standard_error`, those of these
      four over images and draws, of one image None; `elbo_bits_per_dimension`
      and `bits_per_dimension`, of log p(x), or None; `active_units`, how many
      dimensions have Var_x(E_q[z_d]) > 0.01 (Burda, Grosse and Salakhutdinov
      2015, arXiv:1509.00519, section 5.2), None of one image;
      `kl_per_dimension`, or None.
    """
    count = len(found.kl)
    terms = {
        "distortion": -found.reconstruction,
        "rate": found.kl,
        "mutual_information": found.mutual_information,
        "marginal_kl": found.marginal_kl,
    }
    elbo = found.reconstruction - found.kl
    log_p, per_dimension = log_marginal_likelihood, found.kl_per_dimension

    def number(value):  # None for what is not known
        return None if np.isnan(value) else float(value)

    def bits(nats):
        return bits_per_dimension(float(np.mean(nats)), image_shape, levels)

    return {
        "num_examples": count,
        "elbo": float(elbo.mean()),
        **{name: number(term.mean()) for name, term in terms.items()},
        "max_mutual_information": math.log(count),
        "standard_error": {
            name: number(term.std(ddof=1) / math.sqrt(count))
            if count > 1
            else None
            for name, term in terms.items()
        },
        "elbo_bits_per_dimension": bits(elbo),
        "bits_per_dimension": None if log_p is None else bits(log_p),
        "active_units": int(np.sum(found.code_variance > ACTIVE))
        if count > 1
        else None,
        "kl_per_dimension": None
        if per_dimension is None
        else per_dimension.tolist(),
    }


def bits_per_dimension(
    nats: float, image_shape: tuple[int, ...], levels: int | None = None
) -> float:
    """-log2 p(x) / (H W C): what one of an image's H W C numbers costs.

    Args:
      nats: log p(x), or a bound.
      image_shape: `(H, W, C)`.
      levels: with a density of dequantised pixels x = (k + u) / levels, the
        number of levels: -log2 of the density of levels x is the cost of the
        density of x plus log2 levels, and bounds that of the level k (Theis et
        al. 2016, arXiv:1511.01844, section 3.1). None with probabilities.
    """
    offset = 0.0 if levels is None else math.log2(levels)
    return offset - nats / (math.log(2) * math.prod(image_shape))


def _drawn(vae, images, num_samples, seed, first) -> dict[str, np.ndarray]:
    """Of each image of a batch: M draws of z with their log q, and averages."""
    at_once = min(num_samples, max(1, ROWS_AT_ONCE // images.shape[0]))
    function = compiled(vae, _draw)
    chunks = []
    for chunk in range(-(-num_samples // at_once)):
        # Number of the first image, and below it that of the chunk.
        number = tf.constant(first * 2**32 + chunk, tf.int64)
        drawn, known = function(
            images, at_once, key("decomposition", seed, number)
        )
        chunks.append(drawn)
    z, log_q, log_prior, log_likelihood = (
        np.swapaxes(np.concatenate(parts)[:num_samples], 0, 1)
        for parts in zip(*chunks, strict=True)
    )  # [K, B, ...] of each chunk -> [B, M, ...]
    found = {name: part.numpy().astype(float) for name, part in known.items()}
    found |= {"z": z, "log_q": log_q}
    found["reconstruction"] = log_likelihood.mean(1, dtype=float)
    if "kl" not in found:
        found["kl"] = (log_q - log_prior).mean(1, dtype=float)
    return found


def _draw(vae, images, at_once: int, seed):
    """z, log q, log p(z) and log p(x|z) of some draws, and what is known of
    q(z|x) without any.
    """
    posterior, prior = vae.encoder(images), vae.prior_distribution()
    draws = objectives.draw(
        posterior,
        prior,
        standard_normal(
            (at_once, images.shape[0], vae.encoder.latent_dim), seed
        ),
        lambda z: vae.decoder(z).log_prob(images),
    )
    known = {"mean": posterior.mean()}
    exact_kl = objectives.exact_kl(posterior, prior)
    if exact_kl is not None:
        known["kl"] = exact_kl
    if vae.encoder.factorizes and vae.prior.factorizes:
        known["kl_per_dimension"] = objectives.kl_per_dimension(
            posterior, prior
        )
    return (draws.z, draws.log_q, draws.log_prior, draws.log_likelihood), known
