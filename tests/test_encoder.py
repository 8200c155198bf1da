import keras
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, random_bits

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
