"""A VAE that is linear and normal, whose log p(x) and p(z|x) are known."""

import keras
import numpy as np
from small import IMAGE_SHAPE
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.likelihoods import Likelihood

SCALE = 0.5


class LinearNormal(Likelihood):
    """p(x|z) = N(x; W z + b, s^2 I), on a body that gives z itself."""

    support = "interval"

    def distribution(self, parameters):
        return self._images_of(tfd.Normal(self._flat(parameters), SCALE))


def linear_vae(
    latent_dim=2, posterior="mean_field", strength=0.3, alike=0.0, **kwargs
):
    """The VAE, with random weights, and its W `[P, D]` and b `[P]`; the columns
    of W are as `alike`, and the dimensions of p(z|x) as correlated, as that.
    """
    keras.utils.set_random_seed(0)
    vae = vae_tf.VAE(
        vae_tf.Encoder(latent_dim, posterior, hidden_units=(6,)),
        vae_tf.Decoder(
            IMAGE_SHAPE,
            likelihood=LinearNormal(IMAGE_SHAPE),
            network=keras.layers.Identity(),
        ),
        **kwargs,
    )
    generator = np.random.default_rng(0)
    head = vae.decoder.likelihood
    for variable in (head.linear.kernel, head.bias):
        value = strength * generator.standard_normal(variable.shape)
        if value.ndim == 2:
            value[1:] = alike * value[:1] + (1 - alike) * value[1:]
        variable.assign(value)
    return vae, head.linear.kernel.numpy().T, head.bias.numpy().reshape(-1)


def grey(count, seed=0):
    """Images in [0, 1] `[count, H, W, C]`."""
    shape = (count, *IMAGE_SHAPE)
    return np.random.default_rng(seed).random(shape).astype(np.float32)
