import math

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized
from small import grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

from vae_tf import objectives


def normal_noise(*shape, seed=0):
    return tf.random.stateless_normal(shape, seed=[seed, 1])


class KLDivergenceTest(tf.test.TestCase):
    loc = np.array([[0.3, -1.2], [0.0, 0.0]], np.float32)
    scale = np.array([[0.5, 1.7], [1.0, 1.0]], np.float32)
    prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))

    def test_closed_form(self):
        q = tfd.MultivariateNormalDiag(self.loc, self.scale)
        kl = objectives.kl_divergence(q, self.prior, z=None)
        variance = self.scale**2
        expected = 0.5 * (self.loc**2 + variance - 1 - np.log(variance)).sum(-1)
        self.assertAllClose(kl, expected, 1e-6, 1e-6)
        self.assertGreater(kl[0], 0)
        self.assertEqual(kl[1], 0)  # q is the prior

    def test_agrees_with_monte_carlo_in_value_and_gradient(self):
        count = 60_000
        loc, scale = tf.Variable(self.loc[:1]), tf.Variable(self.scale[:1])
        values, gradients = [], []
        for analytic in (True, False):
            with tf.GradientTape() as tape:
                q = tfd.MultivariateNormalDiag(loc, scale)
                z = objectives.reparameterize(q, normal_noise(count, 1, 2))
                draws = q.log_prob(z) - self.prior.log_prob(z)
                if analytic:
                    kl = objectives.kl_divergence(q, self.prior, z)
                else:
                    kl = tf.reduce_mean(draws, axis=0)
            values.append(kl)
            gradients.append(tape.gradient(kl, [loc, scale]))
        error = 4 * np.std(draws) / math.sqrt(count)
        self.assertLess(error, 0.05)
        self.assertAllClose(values[0], values[1], atol=error)
        self.assertAllClose(gradients[0], gradients[1], atol=0.05)

    def test_is_the_average_over_samples_without_a_closed_form(self):
        prior = tfd.Independent(tfd.Laplace(tf.zeros(2), 1.0), 1)
        q = tfd.MultivariateNormalDiag(self.loc, self.scale)
        z = objectives.reparameterize(q, normal_noise(5, 2, 2))
        kl = objectives.kl_divergence(q, prior, z)
        ratio = q.log_prob(z) - prior.log_prob(z)
        self.assertAllClose(kl, np.mean(ratio, 0))


class LinearGaussianTest(parameterized.TestCase, tf.test.TestCase):
    """z ~ N(0, I), x|z ~ N(Wz, s^2 I), where log p(x) and p(z|x) are known."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(0)
        self.weight = generator.standard_normal((5, 2)).astype(np.float32)
        self.noise_scale = 0.7
        self.x = generator.standard_normal((1, 5)).astype(np.float32)
        self.prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
        covariance = self.weight @ self.weight.T + self.noise_scale**2 * np.eye(
            5
        )
        self.log_p = scipy.stats.multivariate_normal(
            np.zeros(5), covariance
        ).logpdf(self.x[0])
        precision = (
            np.eye(2) + self.weight.T @ self.weight / self.noise_scale**2
        )
        self.posterior_covariance = np.linalg.inv(precision)
        self.posterior_loc = (
            self.posterior_covariance
            @ self.weight.T
            @ self.x[0]
            / self.noise_scale**2
        )

    def likelihood(self, z):
        loc = tf.linalg.matvec(self.weight, z)
        scale = tf.fill([5], self.noise_scale)
        return tfd.MultivariateNormalDiag(loc, scale)

    def exact_posterior(self):
        return tfd.MultivariateNormalTriL(
            [tf.constant(self.posterior_loc, tf.float32)],
            [
                tf.constant(
                    np.linalg.cholesky(self.posterior_covariance), tf.float32
                )
            ],
        )

    def test_at_the_exact_posterior_every_weight_is_the_evidence(self):
        q = self.exact_posterior()
        z = objectives.reparameterize(q, normal_noise(50, 1, 2))
        log_likelihood = self.likelihood(z).log_prob(self.x)
        log_weights = objectives.log_importance_weights(
            log_likelihood, z, q, self.prior
        )
        self.assertAllClose(
            log_weights, tf.fill((50, 1), self.log_p), 1e-4, 1e-4
        )

    def test_expected_elbo_lies_below_by_the_divergence(
        self,
    ):
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        z = objectives.reparameterize(q, normal_noise(400_000, 1, 2))
        likelihood = self.likelihood(z)
        terms = objectives.elbo(self.x, z, q, likelihood, self.prior)
        gap = self.log_p - terms.elbo
        divergence = tfd.kl_divergence(q, self.exact_posterior())
        error = 4 * np.std(likelihood.log_prob(self.x)) / math.sqrt(400_000)
        self.assertLess(error, 0.05)
        self.assertAllClose(gap, divergence, atol=error)
        self.assertGreater(gap[0], 0)

    def test_both_forms_of_the_elbo_agree(self):
        # E[log p(x,z) - log q(z|x)] = E[log p(x|z)] - KL(q || p)
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        z = objectives.reparameterize(q, normal_noise(100_000, 1, 2))
        terms = objectives.elbo(self.x, z, q, self.likelihood(z), self.prior)
        log_weights = objectives.log_importance_weights(
            self.likelihood(z).log_prob(self.x), z, q, self.prior
        )
        error = 4 * np.std(log_weights) / math.sqrt(100_000)
        self.assertAllClose(
            terms.elbo, tf.reduce_mean(log_weights, 0), atol=error
        )
        self.assertAllClose(terms.elbo, terms.reconstruction - terms.kl)

    def test_importance_weighted_bound_rises_to_the_evidence(self):
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        z = objectives.reparameterize(q, normal_noise(2**16, 1, 2))
        log_weights = objectives.log_importance_weights(
            self.likelihood(z).log_prob(self.x), z, q, self.prior
        )
        bounds = []
        for k in (1, 2, 8, 64, 1024):
            grouped = tf.reshape(log_weights, (k, -1))
            bounds.append(
                np.mean(objectives.importance_weighted_bound(grouped))
            )
        self.assertAllEqual(bounds, sorted(bounds))
        self.assertGreater(bounds[1] - bounds[0], 0.01)
        self.assertLess(bounds[0], self.log_p)
        self.assertAllClose(bounds[-1], self.log_p, atol=0.02)

    def test_minibatches_of_data_are_unbiased(self):
        # Only local latents: the data's ELBO is a sum over datapoints.
        x = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
        q = tfd.MultivariateNormalDiag(tf.zeros((7, 2)), tf.ones((7, 2)))
        z = objectives.reparameterize(q, normal_noise(3, 7, 2))
        every = objectives.elbo(x, z, q, self.likelihood(z), self.prior).elbo
        self.assertEqual(every.shape, (7,))
        parts = []
        for rows in (slice(0, 4), slice(4, 7)):
            q_rows = tfd.MultivariateNormalDiag(
                q.mean()[rows], q.stddev()[rows]
            )
            z_rows = z[:, rows]
            parts.append(
                objectives.elbo(
                    x[rows], z_rows, q_rows, self.likelihood(z_rows), self.prior
                ).elbo
            )
        self.assertAllClose(tf.concat(parts, 0), every, 1e-5, 1e-5)
        # Each batch, drawn as often as it has rows, estimates the whole.
        estimates = [7 / len(part) * tf.reduce_sum(part) for part in parts]
        self.assertAllClose(
            4 / 7 * estimates[0] + 3 / 7 * estimates[1],
            tf.reduce_sum(every),
            1e-5,
        )


class EvidenceOnAGridTest(tf.test.TestCase):
    def test_evidence_is_elbo_plus_divergence_from_the_posterior(self):
        # log p(x) = ELBO + KL(q(z|x) || p(z|x)), each integral a sum on a grid.
        vae, images = small_vae(), random_bits(4)
        z, log_cell = grid()
        log_joint = vae.log_joint(images, tf.repeat(z[:, None], 4, 1))
        log_p = tf.reduce_logsumexp(log_joint + log_cell, 0)  # [4]
        q = vae.encoder(images)
        log_q = q.log_prob(z[:, None])
        weight = tf.exp(log_q + log_cell)
        divergence = tf.reduce_sum(weight * (log_q - log_joint + log_p), 0)
        noise = normal_noise(20_000, 4, 2)
        elbo = vae.elbo_terms(images, tf.concat([noise, -noise], 0)).elbo
        self.assertAllClose(tf.reduce_sum(weight, 0), tf.ones(4), 1e-3)
        self.assertAllGreater(divergence, 0.01)
        self.assertAllClose(elbo + divergence, log_p, 5e-3, 5e-3)
