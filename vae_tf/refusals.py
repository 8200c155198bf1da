"""What the model refuses, and why: images that its likelihood gives no
probability, parts that do not fit each other, choices that no objective covers.
"""

import math
import warnings

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import objectives
from vae_tf.config import NOT_IN_SUPPORT
from vae_tf.priors import Prior
from vae_tf.settings import UserError


def check_images(images, image_shape: tuple, support: str) -> tf.Tensor:
    """Images `[B, H, W, C]` as float32; see `VAE.check_images`."""
    images = tf.cast(images, tf.float32)
    if tuple(images.shape[1:]) != image_shape:
        raise UserError(
            f"images: expected shape {('B', *image_shape)}, received "
            f"{tuple(images.shape)}."
        )
    if not tf.executing_eagerly():
        return images
    values = images.numpy()
    if not np.all((values >= 0) & (values <= 1)):  # NaN compares false
        raise UserError(
            "images: expected values in [0, 1], received values from "
            f"{values.min()} to {values.max()}."
        )
    if not np.all(in_support(images, support)):
        raise UserError(
            f"images: expected pixels k/{_steps(support)} with whole k, "
            f"received other values: {NOT_IN_SUPPORT[support]}. "
            "vae_tf.load_data gives a likelihood what it needs."
        )
    return images


def in_support(images: tf.Tensor, support: str) -> tf.Tensor:
    """Whether a likelihood gives each pixel of images `[B, H, W, C]` in [0, 1]
    probability, or density: bool, of the same shape.
    """
    if support not in NOT_IN_SUPPORT:
        return tf.ones_like(images, tf.bool)
    steps = _steps(support)
    nearest = tf.round(images * steps) / steps
    rounding = 0.0 if support == "binary" else 1e-6  # of k/255
    return tf.abs(images - nearest) <= rounding


def _steps(support: str) -> int:
    """Between 0 and 1."""
    return 1 if support == "binary" else 255


def check_parts(encoder, decoder, prior, objective, train_variables) -> None:
    """Raises UserError unless the parts of a VAE, built, are what `VAE.draws`
    and the objective rely on.
    """
    if not isinstance(prior, Prior):
        raise UserError(
            "prior: expected a name or a vae_tf.priors.Prior, received a "
            f"{type(prior).__name__}."
        )
    latent, image = (encoder.latent_dim,), decoder.image_shape
    posterior = encoder(tf.zeros((1, *image)))
    if not (
        isinstance(posterior, tfd.TransformedDistribution)
        and posterior.reparameterization_type == tfd.FULLY_REPARAMETERIZED
        and _is_standard_normal(posterior.distribution, *latent)
    ):
        raise UserError(
            "posterior: expected a reparameterised q(z|x), a "
            "tfd.TransformedDistribution of standard-normal "
            "noise such as tfd.MultivariateNormalDiag, received "
            f"tfd.{type(posterior).__name__}."
        )
    for name, found, expected in (
        ("posterior", posterior, latent),
        ("prior", prior.distribution(encoder), latent),
        ("likelihood", decoder(tf.zeros((1, *latent))), image),
    ):
        if tuple(found.event_shape) != expected:
            raise UserError(
                f"{name}: expected a distribution with event shape "
                f"{expected}, received {tuple(found.event_shape)}."
            )
    _check_combination(encoder, prior, objective, train_variables)
    if objective.estimator(encoder.one_pass_density) != "plain":
        _check_detached(encoder)


def _check_combination(encoder, p, objective, train_variables) -> None:
    """Raises UserError where families that are right by themselves have no
    objective together.
    """
    q_name, p_name = type(encoder.posterior).__name__, type(p).__name__
    one_pass = encoder.one_pass_density
    estimator = objective.estimator(one_pass)
    sequential = (
        f"log q(z|x) of {q_name} at a z of another origin takes "
        f"{encoder.latent_dim} passes, one after the other (a head that knows "
        "better sets one_pass_density = True)"
    )
    if estimator != "plain" and not one_pass:
        raise UserError(
            f"gradient_estimator: expected plain (or auto) with posterior "
            f"{q_name}, received {objective.gradient_estimator!r}: "
            f"{sequential}."
        )
    if p.uses_encoder and not one_pass:
        raise UserError(
            "prior: expected one that is not made of q(z|x) with posterior "
            f"{q_name}, received {p_name}: {sequential}."
        )
    if p.uses_encoder and train_variables != "all":
        raise UserError(
            f"train_variables: expected all with prior {p_name}, received "
            f"{train_variables!r}: p(z) is made of the inference network, so "
            "phi cannot be held while theta moves, nor p(z) while phi does."
        )
    if objective.free_bits and not (encoder.factorizes and p.factorizes):
        raise UserError(
            "free_bits: expected 0.0 unless q(z|x) and p(z) factorise, "
            "because the KL divergence of a single dimension is that of "
            f"factors; received {objective.free_bits} with posterior "
            f"{q_name} and prior {p_name}."
        )
    if (
        objective.bound != "elbo"
        and objective.num_samples > 1
        and estimator == "stl"
    ):
        warnings.warn(
            "gradient_estimator: stl is biased for the importance-weighted "
            "bound of more than one sample (Tucker et al. 2018, "
            "arXiv:1810.04152); dreg is not.",
            stacklevel=2,
        )


def _check_detached(encoder) -> None:
    """Raises UserError unless stl and dreg can hold phi inside log q(z|x) fixed
    at a given z.
    """
    z = tf.zeros((1, encoder.latent_dim))
    with tf.GradientTape() as tape:
        posterior = encoder(tf.zeros((1, *encoder.image_shape)))
        log_q = objectives.detached(posterior).log_prob(z)
    slopes = tape.gradient(log_q, encoder.trainable_variables)
    if any(slope is not None for slope in slopes):
        raise UserError(
            "gradient_estimator: expected plain with posterior "
            f"{type(encoder.posterior).__name__}, whose log q(z|x) depends on "
            "phi by more than the tensors that its distribution was made of "
            "(such as those of a bijector), received one that holds them fixed."
        )


def _is_standard_normal(base: tfd.Distribution, latent_dim: int) -> bool:
    """Whether noise from N(0, I) is what a posterior's base draws."""
    noise = np.linspace(-1.5, 2.0, latent_dim, dtype=np.float32)
    expected = -0.5 * np.sum(noise**2 + math.log(2 * math.pi))
    return np.allclose(base.log_prob(noise), expected, 1e-4)
