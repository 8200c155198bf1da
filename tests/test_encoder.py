import keras
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, random_bits
from tensorflow_probability import distributions as tfd

import vae_tf


class EncoderTest(parameterized.TestCase, tf.test.TestCase):
    def test_gives_a_distribution_over_the_latent(self):
        q = vae_tf.Encoder(latent_dim=3)(random_bits(5))
        self.assertEqual((q.batch_shape, q.event_shape), ([5], [3]))

    def test_rows_do_not_meet(self):
        encoder, images = vae_tf.Encoder(latent_dim=2), random_bits(4)
        alone = encoder(images[2:3]).mean()[0]
        self.assertAllClose(encoder(images).mean()[2], alone, 1e-6, 1e-6)

    def test_takes_parts_as_instances(self):
        body = keras.Sequential(
            [keras.layers.Conv2D(2, 2), keras.layers.Flatten()]
        )
        head = vae_tf.MeanField(2)
        encoder = vae_tf.Encoder(latent_dim=2, posterior=head, network=body)
        encoder(random_bits(1))
        self.assertIs(encoder.posterior, head)
        self.assertLen(encoder.trainable_variables, 4)

    def test_config_round_trip(self):
        before = vae_tf.Encoder(latent_dim=3, hidden_units=(4,))
        before(random_bits(1))
        after = vae_tf.Encoder.from_config(before.get_config())
        after(random_bits(1))
        after.set_weights(before.get_weights())
        images = random_bits(2)
        self.assertAllEqual(before(images).mean(), after(images).mean())

    @parameterized.named_parameters(
        ("posterior", {"posterior": "cauchy"}, "one of mean_field.*'cauchy'"),
        ("network", {"network": "lstm"}, "network: expected one of mlp"),
        ("latent_dim", {"latent_dim": 0}, "an integer >= 1, received 0"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            vae_tf.Encoder(**arguments)

    def test_refuses_images_of_another_shape(self):
        encoder = vae_tf.Encoder(latent_dim=2)
        encoder(random_bits(1))
        self.assertEqual(encoder.image_shape, IMAGE_SHAPE)
        with self.assertRaisesRegex(vae_tf.UserError, r"\(2, 5, 5, 1\)"):
            encoder(tf.zeros((2, 5, 5, 1)))


SPATIAL = {
    "no_flatten": lambda: [keras.layers.Conv2D(4, 3)],
    "keepdims": lambda: [
        keras.layers.Conv2D(4, 3),
        keras.layers.GlobalAveragePooling2D(keepdims=True),
    ],
    "sequence": lambda: [
        keras.layers.Reshape((4, 3)),
        keras.layers.LSTM(4, return_sequences=True),
    ],
    "rows_in_one": lambda: [
        keras.layers.Lambda(lambda x: tf.reshape(x, (1, -1))),
        keras.layers.Dense(3),
    ],
    "pixels_as_rows": lambda: [
        keras.layers.Lambda(lambda x: tf.reshape(x, (-1, 3)))
    ],
}


class BatchShapeTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*SPATIAL)
    def test_a_body_without_a_row_for_each_image(self, name):
        # Else images meet each other's z, and training shows a collapse.
        encoder = vae_tf.Encoder(2, network=keras.Sequential(SPATIAL[name]()))
        with self.assertRaisesRegex(
            vae_tf.UserError, r"one q\(z\|x\) for each of 3 images"
        ):
            vae_tf.VAE(encoder, vae_tf.Decoder(IMAGE_SHAPE))

    def test_a_head_without_a_row_for_each_image(self):
        class Shared(keras.layers.Layer):
            def call(self, features):
                return tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))

        encoder = vae_tf.Encoder(2, posterior=Shared())
        with self.assertRaisesRegex(vae_tf.UserError, r"batch shape \[\]"):
            vae_tf.VAE(encoder, vae_tf.Decoder(IMAGE_SHAPE))

    @parameterized.named_parameters(
        (
            "sequence",
            lambda: [
                keras.layers.RepeatVector(5),
                keras.layers.LSTM(4, return_sequences=True),
            ],
        ),
        (
            "another_size",
            lambda: [keras.layers.Dense(48), keras.layers.Reshape((4, 4, 3))],
        ),
    )
    def test_a_decoder_without_features_of_each_latent(self, layers):
        decoder = vae_tf.Decoder(
            IMAGE_SHAPE, network=keras.Sequential(layers())
        )
        with self.assertRaisesRegex(
            vae_tf.UserError, r"expected features \(B, F\) or \(B, 4, 3"
        ):
            vae_tf.VAE(vae_tf.Encoder(2), decoder)

    def test_a_likelihood_that_mixes_rows(self):
        class Mixing(vae_tf.Bernoulli):
            def call(self, features):
                return super().call(features)[:1]

        decoder = vae_tf.Decoder(IMAGE_SHAPE, likelihood=Mixing(IMAGE_SHAPE))
        with self.assertRaisesRegex(
            vae_tf.UserError, "one p.x.z. for each of 3"
        ):
            vae_tf.VAE(vae_tf.Encoder(2), decoder)
