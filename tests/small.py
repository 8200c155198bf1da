"""A model and data small enough for exact answers."""

import atexit
import pathlib
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.data.disk_images import DiskImages
from vae_tf.priors import PRIORS

IMAGE_SHAPE = (4, 3, 1)


def small_vae(latent_dim=2, seed=0, posterior="mean_field", **kwargs):
    """A VAE of 4x3 images with random weights, large enough to matter."""
    keras.utils.set_random_seed(seed)
    vae = vae_tf.VAE(
        encoder=vae_tf.Encoder(latent_dim, posterior, hidden_units=(8, 5)),
        decoder=vae_tf.Decoder(IMAGE_SHAPE, hidden_units=(5, 8)),
        **kwargs,
    )
    generator = np.random.default_rng(seed)
    for variable in vae.trainable_variables:
        variable.assign(0.4 * generator.standard_normal(variable.shape))
    return vae


def combined(
    likelihood="bernoulli",
    posterior="mean_field",
    prior="standard_normal",
    objective="elbo",
    network="mlp",
    **kwargs,
):
    """A small VAE of the families named."""
    keras.utils.set_random_seed(0)
    body = {"network": network, "hidden_units": (6,)}
    if prior != "standard_normal":
        prior = PRIORS[prior](2, num_components=3)
    return vae_tf.VAE(
        vae_tf.Encoder(2, posterior, **body),
        vae_tf.Decoder(IMAGE_SHAPE, likelihood, **body),
        prior=prior,
        objective=objective,
        **kwargs,
    )


def gradient(log_prob, parameters):
    """Of a function of an array, at that array, in float32."""
    parameters = tf.constant(parameters, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value = log_prob(parameters)
    return tape.gradient(value, parameters).numpy()


def random_bits(count, seed=0):
    """Binary images [count, 4, 3, 1]."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, *IMAGE_SHAPE))
    return bits.astype(np.float32)


def written(images):
    """uint8 images [N, H, W, C], as a `DiskImages`."""
    path = pathlib.Path(tempfile.mkdtemp()) / "images"
    atexit.register(shutil.rmtree, path.parent)
    images.tofile(path)
    return DiskImages(path, images.shape[1:], range(len(images)))


def grid(limit=7.0, points=281):
    """Points z [points^2, 2] of a square grid, and the log of a cell's area."""
    axis = np.linspace(-limit, limit, points, dtype=np.float32)
    z = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return z, 2 * np.log(axis[1] - axis[0])
