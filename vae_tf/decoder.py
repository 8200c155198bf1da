"""The generative network: latent -> p(x|z)."""

import math
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.encoder import ROWS
from vae_tf.likelihoods import LIKELIHOODS, Likelihood
from vae_tf.networks import DECODER_BODIES
from vae_tf.parts import Part
from vae_tf.settings import UserError, choose


@keras.saving.register_keras_serializable("vae_tf")
class Decoder(Part):
    """p(x|z) with parameters theta: a body that reads the latent, and a
    likelihood head.

    In neural-network language, the decoder that maps a code to (the
    distribution of) an image.

    >>> likelihood = Decoder(image_shape=(28, 28, 1))(z)  # z [S, B, D]
    >>> likelihood.batch_shape, likelihood.event_shape  # [S, B], [H, W, C]
    (TensorShape([3, 4]), TensorShape([28, 28, 1]))

    Args:
      image_shape: `(H, W, C)`.
      likelihood: family of p(x|z), a name of `LIKELIHOODS` or an instance of a
        head.
      network: body, a name of `DECODER_BODIES` or any Keras layer or model `[B,
        D] -> [B, F]` or `[B, H, W, F]`.
      hidden_units: widths of a named body's layers, or channels of its stages;
        None is the body's own default.
      activation: nonlinearity of a named body.

    Call arguments:
      z: `[..., D]`, with any number of leading axes.

    Returns:
      A `tfd.Distribution`, batch `[...]`, event `[H, W, C]`. `predict`, and a
        call on a `keras.Input`, give its mean, `[..., H, W, C]`.

    Raises:
      UserError: a name is unknown, or z differs in D from what it was built
        for.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        likelihood="bernoulli",
        network="mlp",
        hidden_units=None,
        activation="relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(image_shape) != 3 or any(
            type(n) is not int or n < 1 for n in image_shape
        ):
            raise UserError(
                "image_shape: expected (H, W, C), each >= 1, received "
                f"{image_shape!r}."
            )
        self.image_shape = tuple(image_shape)
        self.network = choose(
            "network",
            network,
            DECODER_BODIES,
            image_shape=self.image_shape,
            hidden_units=hidden_units,
            activation=activation,
        )
        self.likelihood = choose(
            "likelihood", likelihood, LIKELIHOODS, image_shape=self.image_shape
        )

    def build(self, input_shape):
        self.latent_dim = input_shape[-1]
        # Builds parts of any kind; rows enough to be told from each other.
        features = self.network(keras.ops.zeros((ROWS, self.latent_dim)))
        if isinstance(self.likelihood, Likelihood):
            height, width, _ = self.image_shape
            if tuple(features.shape[:-1]) not in (
                (ROWS,),
                (ROWS, height, width),
            ):
                raise UserError(
                    "network: expected features (B, F) or (B, "
                    f"{height}, {width}, F) of latents (B, {self.latent_dim}), "
                    f"received {tuple(features.shape)} of "
                    f"({ROWS}, {self.latent_dim})."
                )
        parameters = self.likelihood(features)
        if parameters.shape[0] != ROWS:
            raise UserError(
                f"network, likelihood: expected one p(x|z) for each of {ROWS} "
                f"latents, received parameters {tuple(parameters.shape)}."
            )
        super().build((None, self.latent_dim))

    def tensors(self, distribution):
        """The mean of p(x|z), `[..., H, W, C]`."""
        return distribution.mean()

    def parameters(self, z: tf.Tensor) -> tf.Tensor:
        """`[..., D]` -> the likelihood's parameters, `[..., H, W, C]` with any
        further axes at the end.
        """
        if z.shape[-1] != self.latent_dim:
            raise UserError(
                f"z: expected shape (..., {self.latent_dim}), received "
                f"{tuple(z.shape)}."
            )
        flat = tf.reshape(z, (-1, self.latent_dim))  # [..., D] -> [N, D]
        rows = self.likelihood(self.network(flat))
        shape = tf.concat([tf.shape(z)[:-1], tf.shape(rows)[1:]], 0)
        return tf.reshape(rows, shape)  # [N, ...] -> [..., ...]

    def call(self, z) -> tfd.Distribution:
        """z `[..., D]` -> p(x|z), batch `[...]`, event `[H, W, C]`."""
        return self.likelihood.distribution(
            self.parameters(tf.convert_to_tensor(z))
        )

    def get_config(self):
        return super().get_config() | {
            "image_shape": self.image_shape,
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "network": keras.saving.serialize_keras_object(self.network),
        }


def log_prob_of_pixels(
    likelihood: tfd.Distribution, images: tf.Tensor
) -> tf.Tensor | None:
    """log p(x_i|z) of each pixel `[..., B, H, W, C]`, whose sum is log p(x|z);
    None where a likelihood of the user's own does not say it.

    Args:
      likelihood: p(x|z), batch `[..., B]`, event `[H, W, C]`.
      images: x `[B, H, W, C]`.
    """
    pixels: Any = getattr(likelihood, "distribution", None)
    # Of a `tfd.Independent`, or what TFP makes in its place of a distribution
    # that is no composite tensor.
    if not hasattr(pixels, "reinterpreted_batch_ndims"):
        return None
    flat = tf.reshape(images, (-1, math.prod(images.shape[1:])))
    log_p = pixels.distribution.log_prob(flat)  # [..., B, H * W * C]
    return tf.reshape(
        log_p, tf.concat([tf.shape(log_p)[:-1], images.shape[1:]], 0)
    )
