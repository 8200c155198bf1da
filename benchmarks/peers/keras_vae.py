"""A contestant: the VAE in plain Keras, as Keras' users write it."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.shared.stopwatch import fitting, model_arguments, serve


class PlainVAE(keras.Model):
    """q(z|x), p(x|z) and their ELBO in one class."""

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


def plain(settings):
    with np.load(settings.images) as file:
        images = file["train"].reshape(-1, 784).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images))
    vae = PlainVAE(settings.hidden, settings.latent)
    vae.compile(keras.optimizers.RMSprop(1e-3, centered=True))
    return vae, data.batch(settings.batch).prefetch(tf.data.AUTOTUNE)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    serve(fitting(*plain(model_arguments(__doc__))))
