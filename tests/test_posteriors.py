import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized
from small import grid
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import objectives, posteriors
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


class FirstWeightsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*posteriors.POSTERIORS)
    def test_are_a_function_of_the_seed(self, name):
        def weights(seed):
            keras.utils.set_random_seed(seed)
            head = posteriors.POSTERIORS[name](3)
            head(tf.ones((1, 4)))
            return [np.array(v) for v in head.trainable_variables if v.ndim > 1]

        self.assertAllClose(weights(0), weights(0), 0, 0)
        for one, other in zip(weights(0), weights(1)):
            self.assertNotAllClose(one, other)


class FullCovarianceTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.head = vae_tf.FullCovariance(3)
        self.features = tf.random.stateless_normal((4, 6), seed=[0, 1])
        self.head(self.features)
        kernel = self.head.parameters.kernel
        kernel.assign(tf.random.stateless_normal(kernel.shape, seed=[0, 2]))
        self.q = self.head(self.features)

    def test_is_a_normal_with_any_covariance(self):
        z = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
        covariance = self.q.covariance().numpy()
        self.assertGreater(np.abs(covariance[:, 0, 2]).max(), 0.1)
        expected = [
            scipy.stats.multivariate_normal(loc, c).logpdf(row)
            for loc, c, row in zip(self.q.mean().numpy(), covariance, z)
        ]
        self.assertAllClose(self.q.log_prob(z), expected, 1e-3, 1e-3)
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        self.assertAllClose(self.q.stddev() ** 2, variance, 1e-4)

    def test_divergence_from_the_prior_is_closed(self):
        prior = vae_tf.StandardNormal(3).distribution()
        covariance = self.q.covariance().numpy().astype(np.float64)
        expected = [
            0.5 * (np.trace(c) + loc @ loc - 3 - np.linalg.slogdet(c)[1])
            for loc, c in zip(self.q.mean().numpy(), covariance)
        ]
        found = tfd.kl_divergence(self.q, prior)
        self.assertAllClose(found, expected, 1e-4, 1e-3)

    def test_below_the_diagonal_all_is_in_units_of_the_scale(self):
        loc, raw_scale, below = tf.split(
            self.head.parameters(self.features), [3, 3, 3], -1
        )
        scale = posteriors._positive(raw_scale).numpy()
        older = vae_tf.FullCovariance(3, relative=False)
        older(self.features)
        older.set_weights(self.head.get_weights())
        for head, unit in ((self.head, scale[:, :, None] / 3), (older, 1.0)):
            tril = head(self.features).scale.to_dense().numpy()
            self.assertAllClose(
                np.diagonal(tril, axis1=1, axis2=2), scale, 1e-6
            )
            strict = np.tril(tril, -1) / unit
            rows = strict[:, [2, 2, 1], [0, 1, 0]]
            self.assertAllClose(
                np.sort(rows, 1), np.sort(below.numpy(), 1), 1e-4, 1e-5
            )
        # A file that says nothing was written when there was no choice.
        config = self.head.get_config()
        self.assertTrue(config.pop("relative"))
        self.assertFalse(vae_tf.FullCovariance.from_config(config).relative)

    def test_one_dimension(self):
        q = vae_tf.FullCovariance(1)(self.features)
        self.assertEqual((q.batch_shape, q.event_shape), ([4], [1]))

    def test_starts_close_to_the_prior(self):
        q = vae_tf.FullCovariance(3)(self.features)
        prior = vae_tf.StandardNormal(3).distribution()
        self.assertAllInRange(tfd.kl_divergence(q, prior), 0.0, 0.5)


class IAFTest(parameterized.TestCase, tf.test.TestCase):
    def flow(
        self, latent_dim=2, depth=2, units=(7,), batch=3, size=0.4, seed=1
    ):
        """A flow with weights large enough to bend."""
        head = vae_tf.IAF(latent_dim, depth, units)
        features = tf.random.stateless_normal((batch, 4), seed=[0, 1])
        head(features)
        for number, variable in enumerate(head.trainable_variables):
            value = tf.random.stateless_normal(variable.shape, [seed, number])
            variable.assign(size * value)
        return head, features

    @parameterized.parameters((2, (7,)), (5, (4,)), (5, (16, 9)))
    def test_the_jacobian_of_a_step_is_triangular(self, dim, units):
        head, features = self.flow(dim, 2, units, batch=1)
        noise = tf.random.stateless_normal((1, dim), seed=[0, 3])
        for reverse, made in zip((False, True), head.steps):
            step = posteriors.AutoregressiveStep(made.given(features))
            with tf.GradientTape() as tape:
                tape.watch(noise)
                y = step.forward(noise)
            jacobian = tape.jacobian(y, noise)[0, :, 0].numpy()  # dy_i / dx_j
            ahead = np.tril(jacobian, -1) if reverse else np.triu(jacobian, 1)
            behind = np.triu(jacobian, 1) if reverse else np.tril(jacobian, -1)
            self.assertAllEqual(ahead, np.zeros_like(ahead))
            self.assertGreater(np.abs(behind).max(), 1e-3)
            self.assertAllInRange(np.diag(jacobian), 0.0, 1.0)

    @parameterized.parameters(2, 5)
    def test_log_q_is_the_change_of_variables(self, dim):
        head, features = self.flow(dim, batch=1)
        q = head(features)
        noise = tf.random.stateless_normal((1, 1, dim), seed=[0, 4])
        with tf.GradientTape() as tape:
            tape.watch(noise)
            z = objectives.reparameterize(q, noise)
        jacobian = tape.jacobian(z, noise)[0, 0, :, 0, 0].numpy()
        expected = scipy.stats.norm.logpdf(noise).sum() - np.log(
            abs(np.linalg.det(jacobian))
        )
        found = objectives.log_posterior(q, noise)
        self.assertAllClose(found, [[expected]], 1e-4, 1e-4)
        # At a z whose noise is not known, D passes find it.
        z = tf.constant(z.numpy())
        self.assertAllClose(head(features).log_prob(z), found, 1e-3, 1e-3)

    def test_integrates_to_one_and_is_no_gaussian(self):
        head, features = self.flow(batch=1, size=0.8, seed=4)
        q = head(features)
        z, log_cell = grid(limit=9.0, points=361)
        mass = np.exp(q.log_prob(z[:, None])[:, 0] + log_cell)
        self.assertAllClose(mass.sum(), 1.0, 5e-3)
        normal = scipy.stats.multivariate_normal(
            q.mean()[0], np.cov(z.T, aweights=mass)
        )
        log_ratio = np.log(mass + 1e-30) - log_cell - normal.logpdf(z)
        self.assertGreater((mass * log_ratio).sum(), 0.01)

    def test_inverse(self):
        head, features = self.flow(5, 3)
        bijector = head(features).bijector
        noise = tf.random.stateless_normal((6, 3, 5), seed=[0, 5])
        z = tf.constant(bijector.forward(noise).numpy())  # Past the cache.
        self.assertAllClose(bijector.inverse(z), noise, 1e-3, 1e-3)

    def test_moments(self):
        head, features = self.flow(3)
        q = head(features)
        noise = tf.random.stateless_normal((100_000, 3, 3), seed=[0, 6])
        z = objectives.reparameterize(q, noise)
        self.assertAllClose(q.mean(), np.mean(z, 0), atol=0.25)
        self.assertAllClose(q.stddev(), np.std(z, 0), 0.3)
        # Each image's moments are its own, and the same at every call.
        self.assertAllClose(q.mean()[1:2], head(features[1:2]).mean(), 1e-5)
        self.assertAllEqual(q.mean(), head(features).mean())

    def test_depends_on_the_image_through_the_flow(self):
        head, features = self.flow()
        made = head.steps[0]
        x = tf.ones((3, 2))
        self.assertNotAllClose(made(x, features)[0], made(x, features + 1.0)[0])

    def test_the_first_dimension_sees_the_image_too(self):
        # Before it there is no other: what it sees of x comes by a path of its
        # own, for which an older flow has no weights.
        head, features = self.flow()
        x = tf.zeros((3, 2))
        for made, first in zip(head.steps, (0, 1)):
            for parameter in made(x, features):
                self.assertGreater(np.ptp(parameter[:, first]), 1e-3)
        config = head.get_config()
        self.assertTrue(config.pop("context_to_outputs"))
        older = vae_tf.IAF.from_config(config)
        older(features)
        for made, first in zip(older.steps, (0, 1)):
            for parameter in made(x, features):
                self.assertAllEqual(np.ptp(parameter[:, first]), 0.0)

    def test_gates_far_out_stay_finite(self):
        head, features = self.flow()
        head.steps[0].biases[-1].assign([0.0, 0.0, -1e4, 1e4])
        noise = tf.random.stateless_normal((5, 3, 2), seed=[0, 7])
        with tf.GradientTape() as tape:
            log_q = objectives.log_posterior(head(features), noise)
        slopes = tape.gradient(log_q, head.trainable_variables)
        self.assertTrue(np.all(np.isfinite(log_q)))
        for slope in slopes:
            self.assertTrue(np.all(np.isfinite(slope)))

    def test_refuses_one_dimension(self):
        with self.assertRaisesRegex(ValueError, "expected at least 2 for"):
            vae_tf.IAF(1)
