"""A posterior of its own for each image, found by maximising the ELBO with the
model held: inference without an inference network.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.evaluation.compiled import compiled
from vae_tf.inference.ascent import maximised
from vae_tf.inference.families import FAMILIES, Parameters, flow_of
from vae_tf.inference.weights import AT_ONCE, log_weights
from vae_tf.noise import for_tfp, key
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

STARTS = ("encoder", "prior")
GROUP = 2048  # images whose parameters are in memory together
CANDIDATES = 2048  # draws from p(z), of which an image starts at the best


class Local(NamedTuple):
    """Of N images, what `infer` has found."""

    posterior: tfd.Distribution  # batch [N], event [D]
    elbo: np.ndarray  # [N], nats
    elbo_error: np.ndarray  # [N], Monte Carlo standard error, nats
    num_steps: np.ndarray  # [N], gradient steps that each took
    converged: np.ndarray  # [N], whether by the criterion
    family: str
    parameters: Parameters  # tensors [N, ...]

    def rows(self, some: slice) -> tfd.Distribution:
        """The posteriors of some of the images."""
        return FAMILIES[self.family].distribution(
            tf.nest.map_structure(lambda value: value[some], self.parameters)
        )

    def or_better(self, other: "Local") -> "Local":
        """Of each image, what has the higher ELBO, here or in another result of
        the same family and images.
        """
        higher = other.elbo > self.elbo

        def chosen(ours, theirs):
            shape = (-1,) + (1,) * (len(ours.shape) - 1)
            return np.where(higher.reshape(shape), theirs, ours)

        parameters = tf.nest.map_structure(
            lambda *pair: tf.convert_to_tensor(chosen(*pair)),
            self.parameters,
            other.parameters,
        )
        return Local(
            FAMILIES[self.family].distribution(parameters),
            chosen(self.elbo, other.elbo),
            chosen(self.elbo_error, other.elbo_error),
            chosen(self.num_steps, other.num_steps),
            chosen(self.converged, other.converged),
            self.family,
            parameters,
        )


def infer(
    vae: VAE,
    images,
    family: str = "mean_field",
    start: str = "encoder",
    tolerance: float = 0.01,
    max_steps: int = 2000,
    num_samples: int = 512,
    seed: int = 0,
    verbose: int = 0,
) -> Local:
    """argmax over q of ELBO(q; x) = E_q[log p(x, z) - log q(z)], for each image
    by itself, with p held: what an encoder approximates by one function of x.

    Adam (Kingma and Ba 2014, arXiv:1412.6980) on reparameterised gradients of
    two pairs of opposite draws, stratified over 50 steps. It goes in rounds, of
    which the second half of the steps is averaged: 50 steps of 0.1 standard
    deviations of q, 50 of 0.03, 200 of 0.01. An image goes through rounds of
    one kind until its ELBO, by 256 draws that are the same for every round, has
    grown by no more than the tolerance; after those of the last kind it has
    converged. What the best round gave is kept, the start among them, so that
    the ELBO is below the start's by no more than those draws can tell.

    An image's posterior is a function of its pixels and the seed, whatever
    images it comes with. Memory: the parameters of 2,048 images, three times;
    2 D numbers an image for `mean_field`, D (D + 1) for `full_covariance`; for
    `iaf` those of its networks.

    Args:
      vae: a trained model.
      images: x `[N, H, W, C]`.
      family: of each q, a name of `FAMILIES`: "mean_field", "full_covariance"
        or "iaf".
      start: "encoder", q(z|x) ("run inference again"), or "prior", which takes
        nothing of the encoder: the likeliest of 2,048 draws from p(z).
      tolerance: in nats, > 0.
      max_steps: after which an image that has not converged is left.
      num_samples: draws of the ELBO that is returned.
      seed: of the draws.
      verbose: 1 shows a progress bar over images.

    Raises:
      UserError: an argument is out of its range, or the images are not what
        `VAE.check_images` expects.
    """
    _check(vae, family, start, tolerance, max_steps, num_samples)
    images = vae.check_images(images)
    if images.shape[0] == 0:
        raise UserError(NO_IMAGES)
    bar = keras.utils.Progbar(images.shape[0], verbose=verbose)
    groups: list[tuple] = []
    for first in range(0, images.shape[0], GROUP):
        some = images[first : first + GROUP]
        parameters = FAMILIES[family].start(
            _start(vae, some, start, seed), flow_of(vae.encoder)
        )
        groups.append(
            maximised(
                vae,
                some,
                family,
                parameters,
                tolerance,
                max_steps,
                seed,
                bar.add,
            )
        )
    parameters, steps, converged = tf.nest.map_structure(
        lambda *parts: np.concatenate(parts), *groups
    )
    weights = log_weights(vae, images, family, parameters, num_samples, seed)
    parameters = tf.nest.map_structure(tf.convert_to_tensor, parameters)
    return Local(
        FAMILIES[family].distribution(parameters),
        weights.mean(0),
        weights.std(0, ddof=1) / math.sqrt(num_samples),
        steps,
        converged,
        family,
        parameters,
    )


def _check(vae, family, start, tolerance, max_steps, num_samples) -> None:
    """Raises UserError unless `infer` can do it."""
    for name, value, choices in (
        ("family", family, tuple(FAMILIES)),
        ("start", start, STARTS),
    ):
        if value not in choices:
            raise UserError(
                f"{name}: expected one of {', '.join(choices)}, received "
                f"{value!r}."
            )
    if family == "iaf" and vae.encoder.latent_dim < 2:
        raise UserError(
            "family: expected mean_field or full_covariance for one latent "
            "dimension, before which there is none, received 'iaf'."
        )
    if not 0 < tolerance < math.inf:
        raise UserError(
            f"tolerance: expected a number of nats > 0, received {tolerance!r}."
        )
    for name, value in (("max_steps", max_steps), ("num_samples", num_samples)):
        if type(value) is not int or value < 2:
            raise UserError(
                f"{name}: expected an integer >= 2, received {value!r}."
            )


def _start(vae, images, start, seed) -> tfd.Distribution:
    if start == "encoder":
        return vae.encoder(images)
    prior = vae.prior_distribution()
    z = prior.sample(CANDIDATES, seed=for_tfp(key("local start", seed)))
    best = tf.concat(
        [
            compiled(vae, _best)(images[first : first + AT_ONCE], z)
            for first in range(0, images.shape[0], AT_ONCE)
        ],
        axis=0,
    )
    # About the share of the prior's volume that a draw has to itself.
    scale = prior.stddev() * CANDIDATES ** (-1 / vae.encoder.latent_dim)
    return tfd.MultivariateNormalDiag(best, tf.zeros_like(best) + scale)


def _best(vae, images, z) -> tf.Tensor:
    """The z of some `[M, D]` under which each image is likeliest, `[B, D]`."""
    at_once = CANDIDATES // AT_ONCE

    def log_likelihood(z):
        return vae.decoder(z[:, tf.newaxis]).log_prob(tf.identity(images))

    found = tf.map_fn(
        log_likelihood,
        tf.reshape(z, (-1, at_once, z.shape[-1])),
        fn_output_signature=tf.float32,
        parallel_iterations=1,  # more would need the memory of more
    )
    found = tf.reshape(found, (z.shape[0], -1))  # [M, B]
    return tf.gather(z, tf.argmax(found, axis=0))
