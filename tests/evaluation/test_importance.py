import math
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import objectives
from vae_tf.evaluation import estimates, growth, importance, pareto
from vae_tf.evaluation.errors_of_means import bootstrap
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.noise import key, standard_normal


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
        with (
            mock.patch.object(importance, "ROWS_AT_ONCE", 12),
            mock.patch.object(estimates, "EXACT", 17),
        ):
            found = importance.estimate(vae, images, num_samples, seed=1)
        at_once = min(num_samples, 4)
        noise = tf.concat(
            [
                standard_normal((at_once, 3, 2), key("importance", 1, chunk))
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
        # Of the few largest weights that were kept: what they are of all.
        length = pareto.tail_length(num_samples) + 1
        largest = np.sort(log_weights, axis=0)[::-1][:length].T
        self.assertAllClose(
            found.pareto_k, pareto.shape(largest, num_samples), 1e-3, 1e-3
        )
        # Without the k-th weight, the estimate is L_k.
        if num_samples == 1:
            self.assertAllEqual(np.isnan(found.variance), [True] * 3)
            return
        without = np.stack(
            [
                objectives.importance_weighted_bound(
                    np.delete(log_weights, number, axis=0)
                )
                for number in range(num_samples)
            ]
        ).astype(np.float64)
        self.assertAllClose(
            found.variance, (num_samples - 1) * without.var(0), 1e-2, 1e-5
        )
        self.assertAllClose(
            found.bias,
            (num_samples - 1)
            * (without.mean(0) - found.log_marginal_likelihood),
            1e-2,
            1e-3,
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

    def test_stated_intervals_cover_the_truth(self):
        self.assert_stated_intervals_cover_the_truth(50)

    @pytest.mark.slow
    def test_stated_intervals_cover_the_truth_at_large_k(self):
        self.assert_stated_intervals_cover_the_truth(1000)

    def assert_stated_intervals_cover_the_truth(self, num_samples):
        # In 200 repetitions, of each of 20 images and of their mean.
        vae, weights, offset = linear_vae()
        images = grey(20)
        truth = linear_gaussian(images, weights, offset, SCALE)[0]
        found = [
            importance.estimate(vae, images, num_samples, seed)
            for seed in range(200)
        ]
        lower, upper = np.swapaxes(list(map(estimates.interval, found)), 0, 1)
        covers = (lower <= truth) & (truth <= upper)
        self.assertBetween(covers.mean(), 0.93, 0.97)
        # One of 20 shares of 200 has a standard deviation of 0.015.
        self.assertAllInRange(covers.mean(0), 0.90, 0.99)
        error = [
            1.96
            * importance.summary(f, num_samples)["monte_carlo_standard_error"]
            for f in found
        ]
        missed = [
            np.mean(f.log_marginal_likelihood - f.bias - truth) for f in found
        ]
        self.assertBetween(np.mean(np.abs(missed) < error), 0.90, 0.99)

    @pytest.mark.slow
    def test_stated_error_is_the_true_one_at_small_k(self):
        # With a tail: the delta method's error is 0.91 of the true one here,
        # and the estimate lies 0.03 below log p(x).
        vae, images = small_vae(), random_bits(20)
        found = [
            importance.estimate(vae, images, 50, seed) for seed in range(200)
        ]
        variance = np.mean([f.variance for f in found], axis=0)
        log_p = np.array([f.log_marginal_likelihood for f in found])
        self.assertBetween(np.mean(variance**0.5 / log_p.std(0)), 0.96, 1.05)
        bias = np.mean(log_p - exact_log_p(vae, images))
        self.assertBetween(np.mean([f.bias for f in found]) / bias, 0.5, 1.5)
        # The middle of the intervals is less biased than the estimate.
        middle = np.mean([estimates.interval(f) for f in found], axis=1)
        left = np.mean(middle) - np.mean(exact_log_p(vae, images))
        self.assertLess(abs(left), 0.6 * abs(bias))

    @pytest.mark.slow
    def test_pareto_k_flags_a_posterior_that_is_too_narrow(self):
        vae, weights, offset = linear_vae()
        images = grey(20)
        exact = linear_gaussian(images, weights, offset, SCALE)

        # q(z|x) with the mean of p(z|x), and its scales times a number.
        def flagged(times):
            vae, _, _ = linear_vae()  # compiled anew
            scale = times * np.diag(np.linalg.inv(exact.covariance)) ** -0.5
            with mock.patch.object(
                type(vae.encoder),
                "call",
                lambda *_, **__: tfd.MultivariateNormalDiag(
                    exact.loc.astype(np.float32), np.float32(scale)
                ),
            ):
                found = importance.estimate(vae, images, 1000, 1)
            return importance.summary(found, 1000)["pareto_k_over_0.7"]

        self.assertLess(flagged(1.0), 0.1)
        self.assertGreater(flagged(1 / 3), 0.5)

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

    @pytest.mark.slow
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
            "log_marginal_likelihood_interval": bootstrap(log_p),
            "monte_carlo_bias": np.mean([b for e in every for b in e.bias]),
            "pareto_k_over_0.7": np.mean(
                [k > 0.7 for e in every for k in e.pareto_k]
            ),
        }
        for name, value in expected.items():
            self.assertAllClose(measured[name], value, 1e-6, msg=name)
        self.assertAllEqual(found.log_marginal_likelihood, log_p)
        self.assertAllClose(
            measured["elbo"], measured["reconstruction"] - measured["kl"]
        )

    def test_the_bound_rises_from_the_elbo_to_log_p(self):
        vae, images = small_vae(), random_bits(60)
        found = importance.evaluate(vae, [images], 2000, seed=1)
        measured = importance.summary(found, 2000)
        curve = measured["importance_weighted_bound_by_samples"]
        self.assertEqual(
            list(curve),
            "1 2 5 10 20 50 100 200 500 1000 2000".split(),
        )
        self.assertAllGreater(np.diff(list(curve.values())), 0)
        self.assertAllClose(curve["1"], measured["elbo"], atol=0.02)
        self.assertAllClose(
            curve["2000"], measured["log_marginal_likelihood"], 1e-5
        )
        error = measured["importance_weighted_bound_by_samples_standard_error"]
        self.assertAllClose(error["2000"], measured["standard_error"], 1e-4)

    @pytest.mark.slow
    def test_summary_says_how_many_draws_a_tolerance_took(self):
        vae, images = small_vae(), random_bits(8)
        with mock.patch.multiple(growth, STRETCH=40, PLACES=8, MOST=400):
            found = importance.evaluate(vae, [images], 40, 1, tolerance=0.1)
        measured = importance.summary(found, 40, 0.1)
        missed = np.sqrt(found.variance) >= 0.1
        self.assertBetween(np.mean(missed), 0.1, 0.9, found.variance)
        expected = {
            "num_importance_samples": 400,
            "median_num_importance_samples": np.median(found.num_samples),
            "tolerance": 0.1,
            "tolerance_not_reached": np.mean(missed),
        }
        self.assertEqual({k: measured[k] for k in expected}, expected)
        curve = measured["importance_weighted_bound_by_samples"]
        self.assertEqual(list(curve), "1 2 5 10 20 40".split())

    def test_an_error_that_one_draw_cannot_show_is_none(self):
        dataset = tf.data.Dataset.from_tensor_slices(random_bits(1)).batch(1)
        found = importance.evaluate(small_vae(), dataset, 1, seed=1)
        measured = importance.summary(found, 1)
        self.assertIsNone(measured["standard_error"])
        self.assertIsNone(measured["monte_carlo_standard_error"])
        self.assertIsNone(measured["monte_carlo_bias"])
        self.assertIsNone(measured["log_marginal_likelihood_interval"])
        self.assertIsNone(measured["pareto_k_over_0.7"])

    def test_refuses(self):
        vae = small_vae()
        with self.assertRaisesRegex(vae_tf.UserError, "integer >= 1, .* 0"):
            vae_tf.log_marginal_likelihood(vae, random_bits(2), num_samples=0)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            vae_tf.log_marginal_likelihood(vae, random_bits(0))
        with self.assertRaisesRegex(vae_tf.UserError, "expected shape"):
            vae_tf.log_marginal_likelihood(vae, np.zeros((2, 5, 5, 1)))
