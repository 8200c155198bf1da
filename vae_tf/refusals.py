"""What the model refuses, and why: images that its likelihood gives no
probability, parts that do not fit each other, choices that no objective covers.
"""

import math
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import objectives
from vae_tf.config import NOT_IN_SUPPORT
from vae_tf.priors import Prior
from vae_tf.settings import UserError

MIN_EPSILON = 1e-16  # of Adafactor
NO_IMAGES = "data: expected at least one batch of images, received none."


def check_keras() -> None:
    """Raises UserError where Keras is set to what this package has not."""
    for name, found, expected in (
        ("KERAS_BACKEND", keras.config.backend(), "tensorflow"),
        ("floatx", keras.config.floatx(), "float32"),
        (
            "image_data_format",
            keras.config.image_data_format(),
            "channels_last",
        ),
    ):
        if found != expected:
            raise UserError(
                f"{name}: expected {expected!r} of Keras, received {found!r} "
                "(an environment variable, keras.json or keras.config)."
            )


def check_compiled(given: dict[str, Any]) -> None:
    """Raises UserError where `compile` is given a loss, metrics, or an
    optimizer that ends in NaN.
    """
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        if given.get(name) is not None:
            raise UserError(
                f"{name}: expected none, because what a VAE maximises is a "
                "bound on log p(x), its `objective` ('elbo' or 'iwae'), which "
                "is also what it reports, received "
                f"{given[name]!r}. Another p(x|z) is another `likelihood`."
            )
    optimizer = given.get("optimizer")
    if isinstance(optimizer, keras.optimizers.Adafactor):
        # It divides by products of mean squares of gradients, which underflow
        # to 0 where a gradient is 0: 0 / 0 for a pixel that never varies.
        if optimizer.epsilon_1 < MIN_EPSILON:
            raise UserError(
                f"optimizer: expected Adafactor's epsilon_1 >= {MIN_EPSILON}, "
                f"received {optimizer.epsilon_1}, with which weights whose "
                "gradient is 0, such as a constant pixel's, become NaN in "
                "float32."
            )


def as_images(images, image_shape: tuple) -> tf.Tensor:
    """Images `[B, H, W, C]` of any dtype, or of unknown rank, as float32;
    raises UserError where they have another shape.
    """
    try:
        images = tf.cast(images, tf.float32)
        shape = images.shape
        if shape.rank is not None and tuple(shape[1:]) == image_shape:
            return images
        if shape.is_compatible_with((None, *image_shape)):
            return tf.ensure_shape(images, (None, *image_shape))
    except (TypeError, ValueError, tf.errors.UnimplementedError) as error:
        shape = str(error).splitlines()[0]  # no numbers, or rows of several
    raise UserError(
        f"images: expected shape {('B', *image_shape)}, received "
        f"{tuple(shape) if isinstance(shape, tf.TensorShape) else shape}."
    )


def check_images(images, image_shape: tuple, support: str) -> tf.Tensor:
    """Images `[B, H, W, C]` as float32; see `VAE.check_images`."""
    images = as_images(images, image_shape)
    if images.shape[0] == 0:
        raise UserError(NO_IMAGES)
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


class StopAtNonFinite(keras.callbacks.Callback):
    """Stops training, and says so, where the bound is no finite number."""

    def on_train_batch_end(self, batch, logs=None):
        # A subclass' step may log none.
        loss = (logs or {}).get("loss", 0.0)
        if self.model.stop_training or math.isfinite(loss):
            return
        self.model.stop_training = True
        warnings.warn(
            f"loss: expected a finite number, received {loss} at batch "
            f"{batch}; training stops (a smaller learning rate may help).",
            stacklevel=2,
        )


def with_stop(callbacks: Any, model: keras.Model) -> Any:
    """A model's callbacks as `fit` takes them, and `StopAtNonFinite` after
    them.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        stop = StopAtNonFinite()
        stop.set_model(model)
        callbacks.callbacks.append(stop)
        return callbacks
    if callbacks is None or isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks] if callbacks else []
    return [*callbacks, StopAtNonFinite()]


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
    posterior = encoder(encoder.examples(2))
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
    for name, found, batch, event in (
        ("posterior", posterior, (2,), latent),
        ("prior", prior.distribution(encoder), (), latent),
        ("likelihood", decoder(tf.zeros((3, 2, *latent))), (3, 2), image),
    ):
        received = tuple(found.batch_shape), tuple(found.event_shape)
        if received != (batch, event):
            raise UserError(
                f"{name}: expected a distribution with batch shape {batch} and "
                f"event shape {event}, received {received[0]} and event shape "
                f"{received[1]}."
            )
    _check_combination(encoder, prior, objective, train_variables)
    estimator = objective.estimator(
        encoder.one_pass_density, prior.uses_encoder
    )
    if estimator != "plain":
        _check_detached(encoder)


def _check_combination(encoder, p, objective, train_variables) -> None:
    """Raises UserError where families that are right by themselves have no
    objective together.
    """
    # A table of q(z|x), which has no head, has a name of its own.
    q_name = type(getattr(encoder, "posterior", encoder)).__name__
    p_name = type(p).__name__
    one_pass = encoder.one_pass_density
    estimator = objective.estimator(one_pass, p.uses_encoder)
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
    objective.factorizes = encoder.factorizes and p.factorizes
    try:
        objective.check("free_bits", objective.free_bits)
    except ValueError as error:
        raise UserError(
            f"{str(error).rstrip('.')} with posterior {q_name} and prior "
            f"{p_name}."
        ) from None
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
        posterior = encoder(encoder.examples(1))
        log_q = objectives.detached(posterior).log_prob(z)
    # Of variables that are copied to several devices, the first copies.
    copies = tf.distribute.get_strategy().experimental_local_results
    phi = [
        copies(variable.value)[0] for variable in encoder.trainable_variables
    ]
    slopes = tape.gradient(log_q, phi)
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
