"""Contestants of `train_speed.py` in TensorFlow: our `fit` as `train.py` runs
it, the same VAE in plain Keras, and the machine's own matrix products."""

import argparse

import keras
import numpy as np
import tensorflow as tf
from stopwatch import serve

import vae_tf
from vae_tf.splits import Source
from vae_tf.training import steps_per_execution

PEAK_SIZE = 2048  # of the matrices that the machine's rate is measured with


class PlainVAE(keras.Model):
    """The VAE as Keras' users write it."""

    def __init__(self, hidden, latent):
        super().__init__()
        relu = [keras.layers.Dense(units, "relu") for units in hidden]
        self.encoder = keras.Sequential([*relu, keras.layers.Dense(2 * latent)])
        relu = [keras.layers.Dense(units, "relu") for units in hidden[::-1]]
        self.decoder = keras.Sequential([*relu, keras.layers.Dense(784)])
        self.seeds = keras.random.SeedGenerator(0)
        self.trackers = [
            keras.metrics.Mean(name=name)
            for name in ("elbo", "reconstruction", "kl")
        ]

    @property
    def metrics(self):
        return self.trackers

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loc, raw_scale = tf.split(self.encoder(x), 2, -1)
            scale = tf.nn.softplus(raw_scale)
            noise = keras.random.normal(tf.shape(loc), seed=self.seeds)
            logits = self.decoder(loc + scale * noise)
            reconstruction = -tf.reduce_sum(
                tf.nn.sigmoid_cross_entropy_with_logits(x, logits), -1
            )
            kl = tf.reduce_sum(
                0.5 * (loc**2 + scale**2 - 1) - tf.math.log(scale), -1
            )
            loss = tf.reduce_mean(kl - reconstruction)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        for tracker, value in zip(
            self.trackers,
            (reconstruction - kl, reconstruction, kl),
            strict=True,
        ):
            tracker.update_state(value)
        return {tracker.name: tracker.result() for tracker in self.trackers}


def ours(settings):
    with np.load(settings.images) as file:
        images = dict(file)
    source = Source("bits", "bits", 2, images, dict.fromkeys(images))
    data = vae_tf.Data(source, "none", settings.batch, 0)
    body = {
        "network": settings.network,
        "hidden_units": settings.hidden or None,
    }
    vae = vae_tf.VAE(
        vae_tf.Encoder(settings.latent, **body),
        vae_tf.Decoder(
            data.image_shape,
            **body | {"hidden_units": settings.hidden[::-1] or None},
        ),
    )
    vae.compile(
        keras.optimizers.RMSprop(1e-3, centered=True),
        jit_compile="auto",
        steps_per_execution=steps_per_execution(data),
    )
    return vae, data.train


def plain(settings):
    with np.load(settings.images) as file:
        images = file["train"].reshape(-1, 784).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images))
    vae = PlainVAE(settings.hidden, settings.latent)
    vae.compile(keras.optimizers.RMSprop(1e-3, centered=True))
    return vae, data.batch(settings.batch).prefetch(tf.data.AUTOTUNE)


def fitting(vae, data):
    """A round of one pass over the data."""

    def play():
        vae.fit(data, epochs=1, verbose=0)
        return len(data)

    return play


def products(dtype="float32", repetitions=10):
    """A round of square matrix products."""
    matrix = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), dtype)
    product = tf.function(tf.matmul)

    def play():
        for _ in range(repetitions):
            result = product(matrix, matrix)
        result.numpy()
        return repetitions

    return play


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", choices=("ours", "plain", "products"))
    parser.add_argument("--dtype", default="float32", help="of products")
    parser.add_argument("--images", help="npz of bits")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--latent", type=int)
    parser.add_argument("--batch", type=int)
    settings = parser.parse_args()
    keras.utils.set_random_seed(0)
    if settings.dtype != "float32":
        keras.config.set_dtype_policy(f"mixed_{settings.dtype}")
    if settings.contestant == "products":
        serve(products(settings.dtype))
    else:
        make = {"ours": ours, "plain": plain}[settings.contestant]
        serve(fitting(*make(settings)))


if __name__ == "__main__":
    main()
