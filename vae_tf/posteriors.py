"""Families of the approximate posterior q(z|x): heads from features to a
distribution over the latent.

A head returns a `tfd.TransformedDistribution` of standard-normal noise, z =
T(epsilon), which is what the reparameterisation trick differentiates (Kingma
and Welling 2013, arXiv:1312.6114, section 2.4)."""

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

MIN_SCALE = 1e-4  # keeps log q(z|x) and its gradient finite
UNIT_SOFTPLUS = 0.5413249  # where softplus is 1, the scale of the prior


@keras.saving.register_keras_serializable("vae_tf")
class MeanField(keras.layers.Layer):
    """q(z|x) = N(z; loc(x), diag(scale(x)^2)): every latent dimension
    independent given x.

    "Mean field" is meant over dimensions here; over datapoints, the inference
    network is shared (amortized).

    Args:
      latent_dim: D.

    Call arguments:
      features: `[B, F]`.

    Returns:
      `tfd.MultivariateNormalDiag`, batch `[B]`, event `[D]`; each scale at
        least 1e-4.
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(
            **{"dtype": "float32"} | kwargs
        )  # Distributions are float32 whatever computes them.
        self.latent_dim = latent_dim
        # Small first weights: training starts from q(z|x) close to the prior,
        # whatever the image.
        small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
        self.parameters = keras.layers.Dense(
            2 * latent_dim, kernel_initializer=small, dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.parameters.build(input_shape)
        super().build(input_shape)

    def call(self, features):
        loc, raw_scale = tf.split(
            self.parameters(features), 2, axis=-1
        )  # [B, D] each
        scale = MIN_SCALE + tf.nn.softplus(raw_scale + UNIT_SOFTPLUS)
        return tfd.MultivariateNormalDiag(loc, scale)

    def get_config(self):
        return super().get_config() | {"latent_dim": self.latent_dim}


POSTERIORS = {"mean_field": MeanField}
