import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import objectives
from vae_tf.posteriors import MIN_SCALE


class MeanFieldTest(tf.test.TestCase):
    def test_is_a_diagonal_normal(self):
        features = tf.random.stateless_normal((5, 7), seed=[0, 1])
        q = vae_tf.MeanField(3)(features)
        self.assertEqual((q.batch_shape, q.event_shape), ([5], [3]))
        z = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
        expected = scipy.stats.norm.logpdf(z, q.mean(), q.stddev()).sum(-1)
        self.assertAllClose(q.log_prob(z), expected, 1e-5, 1e-5)

    def test_starts_close_to_the_prior(self):
        images = tf.random.stateless_uniform((64, 28, 28, 1), seed=[0, 1])
        q = vae_tf.Encoder(latent_dim=2)(images)
        self.assertLess(np.abs(q.mean()).max(), 0.3)
        prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
        self.assertLess(np.max(tfd.kl_divergence(q, prior)), 0.1)

    def test_scale_stays_positive_and_its_gradient_finite(self):
        head = vae_tf.MeanField(2)
        features = tf.constant([[-1e4], [0.0], [1e4]])
        head(features)
        head.parameters.kernel.assign(tf.ones((1, 4)))
        with tf.GradientTape() as tape:
            q = head(features)
            prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
            kl = tf.reduce_sum(tfd.kl_divergence(q, prior))
        self.assertAllGreaterEqual(q.stddev(), MIN_SCALE)
        self.assertTrue(np.isfinite(kl))
        for gradient in tape.gradient(kl, head.trainable_variables):
            self.assertAllInRange(gradient, -1e12, 1e12)

    def test_distributions_are_float32_under_mixed_precision(self):
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        keras.config.set_dtype_policy("mixed_bfloat16")
        encoder, decoder = vae_tf.Encoder(2), vae_tf.Decoder((4, 4, 1))
        q = encoder(tf.ones((2, 4, 4, 1)))
        p = decoder(q.mean())
        self.assertEqual(encoder.network.compute_dtype, "bfloat16")
        self.assertEqual(q.dtype, tf.float32)
        self.assertEqual(p.mean().dtype, tf.float32)

    def test_draws_are_a_function_of_parameters_and_noise(self):
        # z = loc + scale * epsilon, so dz/dloc = 1 and dz/dscale = epsilon.
        loc, scale = tf.Variable([[0.5, -1.0]]), tf.Variable([[2.0, 0.1]])
        noise = tf.constant([[[0.3, -0.7]]])
        with tf.GradientTape(persistent=True) as tape:
            q = tfd.MultivariateNormalDiag(loc, scale)
            z = objectives.reparameterize(q, noise)
        self.assertAllClose(z[0], loc + scale * noise[0])
        self.assertAllClose(tape.gradient(z, loc), [[1.0, 1.0]])
        self.assertAllClose(tape.gradient(z, scale), noise[0])
