import numpy as np
import tensorflow as tf
from small import random_bits, small_vae

from vae_tf.evaluation import importance
from vae_tf.inference import weights
from vae_tf.inference.families import FAMILIES


class WeightsTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae, cls.images = small_vae(), tf.constant(random_bits(5))
        cls.start = FAMILIES["mean_field"].start(cls.vae.encoder(cls.images))

    def test_of_the_encoder_s_posterior_they_are_the_importance_estimate(self):
        found = weights.estimate(
            self.vae, self.images, "mean_field", self.start, 200, seed=3
        )
        expected = importance.estimate(self.vae, self.images, 200, seed=3)
        for ours, theirs in zip(found, expected, strict=True):
            self.assertAllClose(ours, theirs, 1e-4, 1e-4)

    def test_their_mean_is_the_elbo(self):
        found = weights.log_weights(
            self.vae, self.images, "mean_field", self.start, 4000, seed=3
        )
        self.assertEqual(found.shape, (4000, 5))
        elbo = self.vae.elbo(self.images, seed=5, num_samples=4000)
        error = 5 * 2**0.5 * found.std(0) / 4000**0.5
        self.assertAllLess(np.abs(found.mean(0) - elbo) - error, 0)
        # log p(x, z) - log q(z) at one draw, by hand, of equal noise.
        again = weights.log_weights(
            self.vae, self.images, "mean_field", self.start, 4000, seed=3
        )
        self.assertAllEqual(found, again)
        other = weights.log_weights(
            self.vae, self.images, "mean_field", self.start, 4000, seed=4
        )
        self.assertNotAllClose(found, other)

    def test_more_images_than_a_call_takes(self):
        images = tf.repeat(self.images[:1], weights.AT_ONCE + 3, 0)
        start = FAMILIES["mean_field"].start(self.vae.encoder(images))
        found = weights.log_weights(
            self.vae, images, "mean_field", start, 40, seed=3
        )
        self.assertEqual(found.shape, (40, weights.AT_ONCE + 3))
        self.assertAllClose(
            found[:, weights.AT_ONCE :].mean(),
            found.mean(),
            atol=5 * found.std() / 120**0.5,
        )
