"""Families of the likelihood p(x|z): heads from features to a distribution over
images.

A head has two halves, so that a parameter tensor can cross a boundary (serving,
reshaping) that a distribution cannot: `call` gives parameters, `distribution`
reads them."""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd


@keras.saving.register_keras_serializable("vae_tf")
class Bernoulli(keras.layers.Layer):
    """p(x|z) = prod_i Bernoulli(x_i; sigmoid(logits_i(z))) over pixels x_i in
    {0, 1}.

    Args:
      image_shape: `(H, W, C)`.

    Call arguments:
      features: `[B, F]`.

    Returns:
      Logits `[B, H, W, C]`.
    """

    support = "binary"  # pixels in {0, 1}; anything between has no probability

    def __init__(self, image_shape, **kwargs):
        super().__init__(
            **{"dtype": "float32"} | kwargs
        )  # Distributions are float32 whatever computes them.
        self.image_shape = tuple(image_shape)
        self.linear = keras.layers.Dense(
            math.prod(self.image_shape), dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.linear.build(input_shape)
        super().build(input_shape)

    def call(self, features):
        return tf.reshape(self.linear(features), (-1, *self.image_shape))

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """Logits `[..., H, W, C]` -> p(x|z), batch `[...]`, event `[H, W, C]`;
        its mean is P(x_i = 1).
        """
        pixels = _FusedBernoulli(logits=parameters, dtype=tf.float32)
        return tfd.Independent(pixels, len(self.image_shape))

    def adapt(self, mean_image: np.ndarray, count: int) -> None:
        """Starts the bias at the log-odds of the mean image `[H, W, C]` of
        `count` images.

        Half a count is added to each side, which keeps the log-odds of a pixel
        that never varies finite."""
        mean = (mean_image * count + 0.5) / (count + 1)
        self.linear.bias.assign(np.log(mean / (1 - mean)).reshape(-1))

    def get_config(self):
        return super().get_config() | {"image_shape": self.image_shape}


class _FusedBernoulli(tfd.Bernoulli):
    """`tfd.Bernoulli` with half the exponentials in `log_prob`."""

    def _log_prob(self, event):
        # x log p + (1 - x) log(1 - p) = x logits - softplus(logits)
        return event * self.logits - tf.nn.softplus(self.logits)


LIKELIHOODS = {"bernoulli": Bernoulli}
