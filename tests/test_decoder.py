import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, random_bits
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.decoder import log_prob_of_pixels
from vae_tf.likelihoods import LIKELIHOODS


class DecoderTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        ("no_leading_axis", ()), ("batch", (4,)), ("samples", (2, 3, 4))
    )
    def test_keeps_leading_axes(self, leading):
        decoder = vae_tf.Decoder(IMAGE_SHAPE)
        z = tf.random.stateless_normal((*leading, 3), seed=[0, 1])
        p = decoder(z)
        self.assertEqual(p.batch_shape, leading)
        self.assertEqual(p.event_shape, IMAGE_SHAPE)
        self.assertAllInRange(p.mean(), 0.0, 1.0)
        if leading:
            row = decoder(z[(0,) * len(leading)]).mean()
            first = p.mean()[(0,) * len(leading)]
            self.assertAllClose(first, row, 1e-6, 1e-6)

    def test_any_image_shape(self):
        p = vae_tf.Decoder((64, 64, 3))(tf.zeros((2, 8)))
        self.assertEqual(p.event_shape, (64, 64, 3))

    @parameterized.parameters(*LIKELIHOODS)
    def test_log_prob_of_pixels(self, likelihood):
        decoder = vae_tf.Decoder(IMAGE_SHAPE, likelihood)
        p = decoder(tf.random.stateless_normal((4, 2, 3), seed=[0, 1]))
        images = random_bits(2)
        pixels = log_prob_of_pixels(p, images)
        self.assertAllClose(
            tf.reduce_sum(pixels, (-3, -2, -1)), p.log_prob(images), 1e-5
        )
        # Another pixel is another's: the rest stay as they were.
        images[1, 2, 1, 0] = 1 - images[1, 2, 1, 0]
        changed = log_prob_of_pixels(p, images) != pixels
        expected = np.zeros((4, 2, *IMAGE_SHAPE), bool)
        expected[:, 1, 2, 1, 0] = True
        self.assertAllEqual(changed, expected)

    def test_one_that_does_not_say_its_pixels(self):
        whole = tfd.Independent(tfd.Bernoulli(tf.zeros((2, *IMAGE_SHAPE))), 3)
        self.assertIsNone(log_prob_of_pixels(whole, random_bits(2)))

    def test_config_round_trip(self):
        body = keras.Sequential([keras.layers.Dense(3, "tanh")])
        before = vae_tf.Decoder(IMAGE_SHAPE, network=body)
        z = tf.ones((2, 2))
        before(z)
        after = vae_tf.Decoder.from_config(before.get_config())
        after(z)
        after.set_weights(before.get_weights())
        self.assertAllEqual(before(z).mean(), after(z).mean())

    @parameterized.named_parameters(
        ("likelihood", {"likelihood": "cauchy"}, "one of bernoulli.*'cauchy'"),
        ("network", {"network": "lstm"}, "network: expected one of mlp"),
        ("rank", {"image_shape": (28, 28)}, r"\(H, W, C\).*\(28, 28\)"),
        ("size", {"image_shape": (28, 0, 1)}, r"received \(28, 0, 1\)"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            vae_tf.Decoder(**arguments)

    def test_refuses_a_latent_of_another_dimension(self):
        decoder = vae_tf.Decoder(IMAGE_SHAPE)
        decoder(tf.zeros((1, 2)))
        with self.assertRaisesRegex(
            vae_tf.UserError, r"\(\.\.\., 2\), .*\(1, 3"
        ):
            decoder(tf.zeros((1, 3)))
