"""Families of the prior p(z) over the latent."""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

MIN_SCALE = 1e-3  # keeps the density of a component bounded


class Prior(keras.layers.Layer):
    """Base of the families.

    Args:
      latent_dim: D.
    """

    factorizes = False  # whether p(z) = prod_d p(z_d)
    uses_encoder = False  # whether p(z) is made of q(z|x), and so of phi
    num_images = 0  # that `adapt` asks for

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.latent_dim = latent_dim

    def distribution(self, encoder) -> tfd.Distribution:
        """p(z), batch `[]`, event `[D]`.

        Args:
          encoder: the inference network, borrowed where `uses_encoder`.
        """
        raise NotImplementedError

    def adapt(self, images: np.ndarray) -> None:
        """Sets what depends on data, from images `[N, H, W, C]`."""

    def get_config(self):
        return super().get_config() | {"latent_dim": self.latent_dim}


@keras.saving.register_keras_serializable("vae_tf")
class StandardNormal(Prior):
    """p(z) = N(z; 0, I), with nothing to learn.

    Args:
      latent_dim: D.
    """

    factorizes = True

    def distribution(self, encoder=None):
        return tfd.MultivariateNormalDiag(
            tf.zeros(self.latent_dim), tf.ones(self.latent_dim)
        )


@keras.saving.register_keras_serializable("vae_tf")
class Mixture(Prior):
    """p(z) = sum_c weight_c N(z; loc_c, diag(scale_c^2)), all of it learned.

    Args:
      latent_dim: D.
      num_components: C.
    """

    def __init__(self, latent_dim, num_components=100, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.num_components = _at_least_one(num_components)

    def build(self, input_shape=None):
        shape = (self.num_components, self.latent_dim)
        self.logits = self.add_weight(
            shape=shape[:1], initializer="zeros", name="logits"
        )
        # Apart from each other, or equal components would stay equal.
        self.loc = self.add_weight(
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="loc",
        )
        self.raw_scale = self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(0.5413),  # softplus -> 1
            name="raw_scale",
        )
        super().build(input_shape)

    def distribution(self, encoder=None):
        scale = MIN_SCALE + tf.nn.softplus(self.raw_scale)
        return MixtureOfDiagonalNormals(
            tfd.Categorical(logits=tf.convert_to_tensor(self.logits)),
            tfd.MultivariateNormalDiag(tf.convert_to_tensor(self.loc), scale),
        )

    def get_config(self):
        return super().get_config() | {"num_components": self.num_components}


@keras.saving.register_keras_serializable("vae_tf")
class VampPrior(Prior):
    """p(z) = 1/C sum_c q(z|u_c): the variational posterior at C pseudo-inputs
    u_c, images that are learned.

    Tomczak and Welling 2018, arXiv:1705.07120. The encoder is
    borrowed, not owned: the pseudo-inputs are generative parameters, the
    encoder's weights stay inference parameters. It reads the pseudo-inputs as
    in inference: a layer such as dropout or batch normalisation does to them
    what it does after training.

    Args:
      latent_dim: D.
      num_components: C.
    """

    uses_encoder = True

    def __init__(self, latent_dim, num_components=100, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.num_components = _at_least_one(num_components)
        self.num_images = num_components

    def build(self, image_shape):
        self.logits = self.add_weight(
            shape=(self.num_components, *image_shape),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="pseudo_inputs",
        )
        super().build(image_shape)

    def distribution(self, encoder):
        components = encoder(self.pseudo_inputs())
        equal = tfd.Categorical(logits=tf.zeros(self.num_components))
        if isinstance(components, tfd.MultivariateNormalDiag):
            return MixtureOfDiagonalNormals(equal, components)
        if isinstance(components, tfd.MultivariateNormalTriL):
            return MixtureOfNormals(equal, components)
        return tfd.MixtureSameFamily(equal, components)

    def pseudo_inputs(self) -> tf.Tensor:
        """u `[C, H, W, C']`, images in (0, 1)."""
        return tf.sigmoid(self.logits)

    def adapt(self, images):
        """Starts the pseudo-inputs at images `[N, H, W, C']` of the data, a
        little greyer, so that each pixel can still move.
        """
        chosen = np.resize(images, self.logits.shape)
        # Equal components would stay equal: a copy, where N < C, is noisy.
        copies = chosen[len(images) :]
        noise = np.random.default_rng(0).random(copies.shape)
        chosen[len(images) :] = 0.9 * copies + 0.1 * noise
        grey = 0.05 + 0.9 * chosen
        self.logits.assign(np.log(grey / (1 - grey)))

    def get_config(self):
        return super().get_config() | {"num_components": self.num_components}


class MixtureOfDiagonalNormals(tfd.MixtureSameFamily):
    """sum_c weight_c N(z; loc_c, diag(scale_c^2)), whose log density at every z
    is products of matrices: sum_d ((z_d - loc_cd) / scale_cd)^2 = z^2 p_c - 2 z
    (loc_c p_c) + loc_c^2 p_c, with p = 1 / scale^2.

    In float64, which what cancels in that sum leaves exact: term by term, the
    `[N, C, D]` differences and their gradients take ten times as long.
    """

    def _log_prob(self, z):
        normals = self.components_distribution
        loc, scale, z = (
            tf.cast(each, tf.float64)
            for each in (normals.mean(), normals.stddev(), z)
        )
        precision = 1 / scale**2
        squares = (
            tf.tensordot(z**2, precision, [[-1], [-1]])
            - 2 * tf.tensordot(z, loc * precision, [[-1], [-1]])
            + tf.reduce_sum(loc**2 * precision, -1)
        )
        log_volume = tf.reduce_sum(tf.math.log(scale), -1)
        log_volume += loc.shape[-1] * math.log(2 * math.pi) / 2
        weights = self.mixture_distribution.logits_parameter()
        log_weights = tf.cast(tf.nn.log_softmax(weights), tf.float64)
        log_p = log_weights - log_volume - squares / 2  # [..., C]
        return tf.cast(tf.reduce_logsumexp(log_p, -1), tf.float32)


class MixtureOfNormals(tfd.MixtureSameFamily):
    """1/C sum_c N(z; loc_c, L_c L_c^T), with each L_c inverted once, and L_c^-1
    z, for every c, one product of matrices: solving the C systems anew for each
    z takes far longer.
    """

    def _log_prob(self, z):
        normals = self.components_distribution
        count, dim = normals.batch_shape[0], normals.event_shape[0]
        # A head of the user's own may share one L among all.
        scale_tril = tf.broadcast_to(
            normals.scale.to_dense(), (count, dim, dim)
        )
        inverse = tf.linalg.triangular_solve(scale_tril, tf.eye(dim))
        whitened = tf.tensordot(z, inverse, [[-1], [-1]])  # [..., C, D]
        whitened -= tf.linalg.matvec(inverse, normals.mean())
        log_volume = normals.scale.log_abs_determinant()
        log_volume += dim * math.log(2 * math.pi) / 2
        log_p = -log_volume - tf.reduce_sum(whitened**2, -1) / 2
        return tf.reduce_logsumexp(log_p, -1) - math.log(count)


def _at_least_one(num_components: int) -> int:
    if type(num_components) is not int or num_components < 1:
        raise ValueError(
            "num_components: expected an integer >= 1, received "
            f"{num_components!r}."
        )
    return num_components


PRIORS = {
    "standard_normal": StandardNormal,
    "mixture": Mixture,
    "vamp": VampPrior,
}
