"""Families of the prior p(z) over the latent."""

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd


@keras.saving.register_keras_serializable("vae_tf")
class StandardNormal(keras.layers.Layer):
    """p(z) = N(z; 0, I), with nothing to learn.

    Args:
      latent_dim: D.
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.latent_dim = latent_dim

    def distribution(self) -> tfd.Distribution:
        """`tfd.MultivariateNormalDiag`, batch `[]`, event `[D]`."""
        return tfd.MultivariateNormalDiag(
            tf.zeros(self.latent_dim), tf.ones(self.latent_dim)
        )

    def get_config(self):
        return super().get_config() | {"latent_dim": self.latent_dim}


PRIORS = {"standard_normal": StandardNormal}
