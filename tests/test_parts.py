import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf


class Lists(keras.layers.Layer):
    """A user's body whose layers lie in lists, in lists of lists, in dicts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flat = [keras.layers.Dense(4) for _ in range(2)]
        self.named = {"a": [keras.layers.Dense(3)]}

    def call(self, x):
        x = keras.ops.reshape(x, (-1, 12))
        for layer in (*self.flat, *self.named["a"]):
            x = layer(x)
        return x


class CheckpointTest(parameterized.TestCase, tf.test.TestCase):
    """TensorFlow's own checkpoints hold every variable, wherever it lies."""

    def models(self, make):
        for seed in (0, 1):
            keras.utils.set_random_seed(seed)
            vae = make()
            vae.compile("adam", run_eagerly=True)
            vae.train_on_batch(np.ones((2, 4, 3, 1)))
            yield vae

    @parameterized.named_parameters(
        (
            "conv_iaf_mixture",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, "iaf", network="conv", hidden_units=(2,)),
                vae_tf.Decoder((4, 3, 1), network="conv", hidden_units=(2,)),
                prior=vae_tf.Mixture(2, num_components=2),
            ),
        ),
        (
            "vamp",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, hidden_units=(3,)),
                vae_tf.Decoder((4, 3, 1), hidden_units=(3,)),
                prior=vae_tf.VampPrior(2, num_components=2),
            ),
        ),
        (
            "lists_of_the_user_s",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, network=Lists()),
                vae_tf.Decoder((4, 3, 1), hidden_units=(3,)),
            ),
        ),
    )
    def test_of_a_model(self, make):
        one, other = self.models(make)
        one.objective.beta = 0.25
        path = self.create_tempdir().full_path + "/model"
        saved = tf.train.Checkpoint(model=one).save(path)
        status = tf.train.Checkpoint(model=other).restore(saved)
        status.assert_existing_objects_matched()
        pairs = zip(
            one.variables + one.optimizer.variables,
            other.variables + other.optimizer.variables,
        )
        for ours, theirs in pairs:
            self.assertAllEqual(ours, theirs)
        self.assertEqual(other.objective.beta, 0.25)

    def test_of_a_part(self):
        one, other = (
            vae_tf.Encoder(2, "iaf", hidden_units=(3, 4)) for _ in range(2)
        )
        for part in (one, other):
            part(tf.zeros((1, 4, 3, 1)))
        path = self.create_tempdir().full_path + "/part"
        saved = tf.train.Checkpoint(encoder=one).save(path)
        tf.train.Checkpoint(encoder=other).restore(saved)
        for ours, theirs in zip(one.variables, other.variables):
            self.assertAllEqual(ours, theirs)


class PartTest(parameterized.TestCase, tf.test.TestCase):
    IMAGES = np.random.default_rng(0).random((5, 4, 3, 1)).astype(np.float32)

    def test_predict_gives_tensors(self):
        encoder, decoder = vae_tf.Encoder(2), vae_tf.Decoder((4, 3, 1))
        mean, stddev = encoder.predict(self.IMAGES, batch_size=2, verbose=0)
        posterior = encoder(self.IMAGES)
        self.assertAllClose(mean, posterior.mean(), 1e-5, 1e-5)
        self.assertAllClose(stddev, posterior.stddev(), 1e-5, 1e-5)
        image = decoder.predict(mean, verbose=0)
        self.assertAllClose(image, decoder(mean).mean(), 1e-5, 1e-5)

    @parameterized.parameters(*vae_tf.posteriors.POSTERIORS)
    def test_functional_models_of_parts(self, posterior):
        encoder = vae_tf.Encoder(2, posterior, hidden_units=(4,))
        decoder = vae_tf.Decoder((4, 3, 1), hidden_units=(4,))
        encoder(self.IMAGES), decoder(tf.zeros((1, 2)))
        image, z = keras.Input((4, 3, 1)), keras.Input((2,))
        whole = keras.Model(image, decoder(encoder(image)[0]))
        self.assertAllClose(
            whole.predict(self.IMAGES, verbose=0),
            decoder(encoder(self.IMAGES).mean()).mean(),
            1e-5,
            1e-5,
        )
        path = self.create_tempdir().full_path + "/decoder.keras"
        keras.Model(z, decoder(z)).save(path)
        again = keras.saving.load_model(path)
        points = np.ones((3, 2), np.float32)
        self.assertAllClose(again(points), decoder(points).mean(), 1e-6)
