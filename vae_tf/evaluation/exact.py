"""log p(x) without sampling, in nats: by quadrature, where z has one or two
dimensions.
"""

import itertools
import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.errors_of_means import averages
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

# Standard deviations of p(z), and of each q(z|x), to the border; a wider one is
# taken where too much lies there.
REACHES = (7.0, 10.0, 15.0, 25.0)
BLOCK = 4096  # points of the grid in one compiled call
ROWS_AT_ONCE = 2048  # pairs of point and image at once within it
FEWEST = 64  # intervals along a dimension, of the coarsest grid
MOST = {1: 2**17, 2: 2**11}  # of the finest, by the number of dimensions


class Exact(NamedTuple):
    """Per image, `[B]`, in nats."""

    log_marginal_likelihood: np.ndarray
    quadrature_error: np.ndarray


def evaluate(
    vae: VAE,
    dataset: tf.data.Dataset,
    tolerance: float = 1e-3,
    verbose: int = 0,
) -> Exact:
    """`quadrature` of every image of a dataset of batches `[B, H, W, C]`, in
    its order; `verbose=1` shows a progress bar.
    """
    if len(dataset) == 0:
        raise UserError(NO_IMAGES)
    bar = keras.utils.Progbar(len(dataset), verbose=verbose)
    batches: list[Exact] = []
    for images in dataset:
        batches.append(quadrature(vae, images, tolerance))
        bar.update(len(batches))
    return Exact(*map(np.concatenate, zip(*batches, strict=True)))


def summary(found: Exact) -> dict[str, Any]:
    """`errors_of_means.averages`, and `quadrature_error`, the largest of any
    image.
    """
    log_p = found.log_marginal_likelihood
    return {
        **averages(log_p, np.full(len(log_p), np.nan), None),
        "quadrature_error": float(found.quadrature_error.max()),
    }


def quadrature(vae: VAE, images, tolerance: float = 1e-3) -> Exact:
    """log p(x) = log of the integral of p(x|z) p(z) over z, by the trapezoidal
    rule on a grid, for each image.

    The grid covers p(z), all components of it, and q(z|x) of every image, to 7
    standard deviations, or up to 25 where too much lies at the border. Between
    points are at first at most two of the smallest standard deviation, then
    half as much, and again, until no error is above the tolerance or the grid
    has 2^17 points (D = 1), 2^11 along each dimension (D = 2). On smooth
    functions that vanish at the border, the rule's error falls faster than any
    power of the distance between points (Trefethen and Weideman 2014, SIAM
    Review 56(3), section 5).

    The stated error of an image is the difference to the grid of half the
    points along each dimension, plus log(1 + share) of the integral's share in
    the outermost sixteenth of the grid on every side, which bounds what lies
    beyond where the integrand falls to less than half from one sixteenth to the
    next. It is above the tolerance where the finest grid did not reach that.
    The sums are in float64; what is summed is float32, whose rounding, 1e-5 of
    |log p(x|z)| or less, is not in the stated error.

    Memory: 2,048 images decoded at once, or one point and all images where
    they are more. Time: points times images; a Bernoulli image of 28x28 pixels
    takes 0.45 microseconds at each point on two cores.

    Args:
      vae: a model of one or two latent dimensions.
      images: x `[B, H, W, C]`.
      tolerance: in nats, > 0.

    Raises:
      UserError: D > 2, the tolerance is not positive, or the images are not
        what `VAE.check_images` expects.
    """
    dim = vae.encoder.latent_dim
    if dim not in MOST:
        raise UserError(
            "quadrature: expected a model of at most 2 latent dimensions, "
            f"received D = {dim}."
        )
    if not tolerance > 0:
        raise UserError(
            f"tolerance: expected a number > 0, received {tolerance!r}."
        )
    images = vae.check_images(images)
    if images.shape[0] == 0:
        raise UserError(NO_IMAGES)
    for reach in REACHES:
        lower, upper, side = _region(vae, images, reach)
        sums = _sums(vae, images, lower, upper, side, 1, [(0,) * dim])
        if np.max(sums[1] - sums[0]) <= math.log(tolerance / 2):
            break
    mean = sums[0] - dim * math.log(side)
    # A finer grid is the coarser, and the points between: each is seen once.
    between = list(itertools.product((0, 1), repeat=dim))[1:]
    while True:
        before, side = mean, 2 * side
        more = _sums(vae, images, lower, upper, side, 2, between)
        sums = np.logaddexp(sums, more)
        mean = sums[0] - dim * math.log(side)
        difference = np.abs(mean - before)
        error = difference + np.log1p(np.exp(sums[1] - sums[0]))
        if difference.max() <= tolerance / 2 or 2 * side > MOST[dim]:
            return Exact(mean + np.sum(np.log(upper - lower)), error)


def _region(vae, images, reach) -> tuple[np.ndarray, np.ndarray, int]:
    """Corners `[D]` of the grid, and how many intervals it has at first."""
    prior = vae.prior_distribution()
    parts = getattr(prior, "components_distribution", prior)
    loc, scale = (
        np.concatenate(
            [np.reshape(moment, (-1, vae.encoder.latent_dim)) for moment in of]
        ).astype(np.float64)
        for of in zip(
            *((q.mean(), q.stddev()) for q in (parts, vae.encoder(images))),
            strict=True,
        )
    )
    lower = np.min(loc - reach * scale, axis=0)
    upper = np.max(loc + reach * scale, axis=0)
    needed = np.max((upper - lower) / (2 * np.min(scale, axis=0)))
    most = MOST[vae.encoder.latent_dim] // 2
    return lower, upper, int(np.clip(math.ceil(needed), FEWEST, most))


def _sums(
    vae, images, lower, upper, side: int, step: int, offsets: list
) -> np.ndarray:
    """log of the sum of p(x, z) over points of the grid, and over those of them
    in its border, `[2, B]`: of `side` points along each dimension, those with
    indices offset + step k, for each offset and whole k.
    """
    log_sums = compiled(vae, _log_sums)
    coarse = (side // step,) * len(lower)
    total = np.full((2, images.shape[0]), -np.inf)
    for offset, first in itertools.product(
        offsets, range(0, math.prod(coarse), BLOCK)
    ):
        number = np.arange(first, min(first + BLOCK, math.prod(coarse)))
        index = step * np.stack(np.unravel_index(number, coarse), -1) + offset
        share = index / side  # of the way, [G, D]
        border = np.any(np.abs(share - 0.5) > 0.5 - 1 / 16, axis=-1)
        z = np.zeros((BLOCK, len(lower)), np.float32)
        z[: len(share)] = lower + share * (upper - lower)
        weights = np.full((2, BLOCK), -np.inf)  # log 1 or log 0
        weights[0, : len(share)] = 0
        weights[1, : len(share)] = np.where(border, 0, -np.inf)
        total = np.logaddexp(total, log_sums(images, z, weights))
    return total


def _log_sums(vae, images, z, weights) -> tf.Tensor:
    """log sum_g weight_g p(x, z_g) `[2, B]`, float64, of points `[G, D]` and
    log weights `[2, G]`, a few at a time.
    """
    at_once = 1
    while 2 * at_once * images.shape[0] <= ROWS_AT_ONCE:
        at_once *= 2
    prior = vae.prior_distribution()

    def part(chunk):
        z, weights = chunk  # [g, D], [2, g]
        z = z[:, tf.newaxis]  # [g, 1, D]
        log_joint = vae.decoder(z).log_prob(images) + prior.log_prob(z)
        log_joint = tf.cast(log_joint, tf.float64)  # [g, B]
        return tf.reduce_logsumexp(
            weights[:, :, tf.newaxis] + log_joint, axis=1
        )

    parts = tf.map_fn(
        part,
        (
            tf.reshape(z, (-1, at_once, z.shape[-1])),
            tf.transpose(tf.reshape(weights, (2, -1, at_once)), (1, 0, 2)),
        ),
        fn_output_signature=tf.float64,
        parallel_iterations=1,  # more would need the memory of more
    )  # [chunks, 2, B]
    return tf.reduce_logsumexp(parts, axis=0)
