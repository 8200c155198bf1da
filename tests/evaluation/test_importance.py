import math
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import objectives
from vae_tf.evaluation import importance
from vae_tf.noise import standard_normal


def exact_log_p(vae, images):
    """log p(x) by a sum over a grid of z."""
    z, log_cell = grid()
    z = tf.repeat(z[:, tf.newaxis], len(images), 1)
    return tf.reduce_logsumexp(vae.log_joint(images, z) + log_cell, 0).numpy()


class EvaluationTest(parameterized.TestCase, tf.test.TestCase):
    def test_estimate_agrees_with_the_exact_evidence_within_its_error(self):
        vae, images = small_vae(), random_bits(20)
        found = importance.estimate(vae, images, 5000, seed=1)
        error = np.sqrt(found.variance)
        z_scores = (
            found.log_marginal_likelihood - exact_log_p(vae, images)
        ) / error
        self.assertAllLess(error, 0.2)
        self.assertLess(np.abs(z_scores).max(), 5)
        # The errors are of the right size, not merely large.
        self.assertGreater(np.sqrt(np.mean(z_scores**2)), 0.4)

    def test_elbo_lies_below_and_its_terms_add_up(self):
        vae, images = small_vae(), random_bits(20)
        found = importance.estimate(vae, images, 2000, seed=1)
        self.assertAllGreater(found.log_marginal_likelihood - found.elbo, 0)
        self.assertAllClose(found.elbo, found.reconstruction - found.kl)
        self.assertAllClose(
            found.kl,
            tfd.kl_divergence(vae.encoder(images), vae.prior_distribution()),
            1e-5,
        )
        self.assertAllClose(
            found.elbo, vae.elbo(images, 3, num_samples=2000), atol=0.5
        )

    @parameterized.parameters(1, 7, 10, 33)
    def test_streaming_changes_nothing(self, num_samples):
        # K samples at once, or few at a time with a short last chunk.
        vae, images = small_vae(), random_bits(3)
        with mock.patch.object(importance, "ROWS_AT_ONCE", 12):
            found = importance.estimate(vae, images, num_samples, seed=1)
        at_once = min(num_samples, 4)
        noise = tf.concat(
            [
                standard_normal(
                    (at_once, 3, 2),
                    tf.random.experimental.stateless_fold_in(
                        [1, 0], chunk, alg="philox"
                    ),
                )
                for chunk in range(-(-num_samples // at_once))
            ],
            axis=0,
        )[:num_samples]
        draws = vae.draws(images, noise)
        log_weights = draws.log_weights
        self.assertAllClose(
            found.log_marginal_likelihood,
            objectives.importance_weighted_bound(log_weights),
            1e-4,
            1e-4,
        )
        self.assertAllClose(
            found.reconstruction,
            tf.reduce_mean(draws.log_likelihood, 0),
            1e-4,
            1e-4,
        )
        weights = tf.nn.softmax(log_weights, axis=0)
        self.assertAllClose(
            found.effective_sample_size,
            1 / tf.reduce_sum(weights**2, 0),
            1e-3,
            1e-3,
        )
        # Var(log mean w) = (mean w^2 / mean(w)^2 - 1) / K, 0 for equal weights.
        self.assertAllClose(
            found.variance,
            tf.reduce_sum(weights**2, 0) - 1 / num_samples,
            1e-3,
            1e-5,
        )

    def test_effective_sample_size_lies_between_1_and_k(self):
        found = importance.estimate(small_vae(), random_bits(9), 50, seed=1)
        self.assertAllInRange(found.effective_sample_size, 1 - 1e-4, 50 + 1e-4)

    def test_monte_carlo_error_is_the_spread_over_seeds(self):
        vae, images = small_vae(), random_bits(1)
        found = [
            importance.estimate(vae, images, 300, seed) for seed in range(60)
        ]
        spread = np.std([f.log_marginal_likelihood[0] for f in found])
        claimed = math.sqrt(np.mean([f.variance[0] for f in found]))
        self.assertBetween(claimed / spread, 0.6, 1.6)

    def test_the_seed_fixes_the_result(self):
        vae, images = small_vae(), random_bits(4)
        one, same, other = (
            vae_tf.log_marginal_likelihood(vae, images, 20, seed)
            for seed in (1, 1, 2)
        )
        self.assertAllEqual(one, same)
        self.assertNotAllClose(one, other)

    def test_follows_the_weights_after_training(self):
        # The compiled function reads the variables, it does not keep copies.
        vae, images = small_vae(), random_bits(4)
        before = vae_tf.log_marginal_likelihood(vae, images, 500, 1)
        bias = vae.decoder.likelihood.bias
        bias.assign(bias + 1.0)
        after = vae_tf.log_marginal_likelihood(vae, images, 500, 1)
        self.assertNotAllClose(before, after)
        self.assertAllClose(after, exact_log_p(vae, images), atol=0.3)

    def test_averages_over_a_dataset_with_a_short_last_batch(self):
        vae, images = small_vae(), random_bits(10)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(4)
        found = importance.evaluate(vae, dataset, 200, seed=1)
        measured = importance.summary(found, 200)
        every = [
            importance.estimate(vae, images[first : first + 4], 200, 1, first)
            for first in (0, 4, 8)
        ]
        log_p = np.concatenate([e.log_marginal_likelihood for e in every])
        variance = np.concatenate([e.variance for e in every])
        ess = np.concatenate([e.effective_sample_size for e in every])
        expected = {
            "num_examples": 10,
            "elbo": np.mean(np.concatenate([e.elbo for e in every])),
            "kl": np.mean(np.concatenate([e.kl for e in every])),
            "log_marginal_likelihood": log_p.mean(),
            "standard_error": log_p.std(ddof=1) / math.sqrt(10),
            "monte_carlo_standard_error": math.sqrt(variance.sum()) / 10,
            "effective_sample_size": np.median(ess),
            "num_importance_samples": 200,
        }
        for name, value in expected.items():
            self.assertAllClose(measured[name], value, 1e-6, msg=name)
        self.assertAllEqual(found.log_marginal_likelihood, log_p)
        self.assertAllClose(
            measured["elbo"], measured["reconstruction"] - measured["kl"]
        )

    def test_an_error_that_one_draw_cannot_show_is_none(self):
        dataset = tf.data.Dataset.from_tensor_slices(random_bits(1)).batch(1)
        found = importance.evaluate(small_vae(), dataset, 1, seed=1)
        measured = importance.summary(found, 1)
        self.assertIsNone(measured["standard_error"])
        self.assertIsNone(measured["monte_carlo_standard_error"])

    def test_refuses(self):
        vae = small_vae()
        with self.assertRaisesRegex(vae_tf.UserError, "integer >= 1, .* 0"):
            vae_tf.log_marginal_likelihood(vae, random_bits(2), num_samples=0)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            vae_tf.log_marginal_likelihood(vae, random_bits(0))
        with self.assertRaisesRegex(vae_tf.UserError, "expected shape"):
            vae_tf.log_marginal_likelihood(vae, np.zeros((2, 5, 5, 1)))
