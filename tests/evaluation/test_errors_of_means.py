from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from scipy import special, stats

from vae_tf.evaluation import errors_of_means
from vae_tf.evaluation.errors_of_means import averages, bootstrap, jackknife


def of(log_weights, length):
    """The jackknife of log weights `[B, K]`, of which so many are kept."""
    largest = np.sort(log_weights, axis=1)[:, ::-1][:, :length]
    return jackknife(
        largest,
        special.logsumexp(log_weights, axis=1),
        special.logsumexp(2 * log_weights, axis=1),
        log_weights.shape[1],
    )


def by_hand(log_weights):
    """The same with every weight left out in turn."""
    count = log_weights.shape[1]
    without = [
        special.logsumexp(np.delete(log_weights, k, axis=1), axis=1)
        - np.log(count - 1)
        for k in range(count)
    ]
    whole = special.logsumexp(log_weights, axis=1) - np.log(count)
    return (
        (count - 1) * np.var(without, axis=0),
        (count - 1) * (np.mean(without, axis=0) - whole),
    )


class JackknifeTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters((2, 2), (50, 50), (50, 64))
    def test_leaves_each_weight_out(self, count, length):
        logs = np.random.default_rng(0).standard_normal((5, count)) * 2 - 90
        self.assertAllClose(of(logs, length), by_hand(logs), 1e-7)

    @parameterized.parameters(8, 64, 200)
    def test_the_small_weights_need_not_be_kept(self, length):
        logs = np.random.default_rng(1).standard_normal((20, 1000)) * 1.5
        for found, expected in zip(of(logs, length), by_hand(logs)):
            self.assertAllClose(found, expected, 1 / length**2 + 1e-4)

    def test_equal_weights_have_neither_variance_nor_bias(self):
        variance, bias = of(np.full((3, 1000), -7.0), 64)
        self.assertAllClose(variance, np.zeros(3), atol=1e-10)
        self.assertAllClose(bias, np.zeros(3), atol=1e-6)

    def test_large_k_gives_the_delta_method(self):
        logs = 0.5 * np.random.default_rng(2).standard_normal((4, 50_000))
        relative = np.exp(logs).var(1) / np.exp(logs).mean(1) ** 2 / 50_000
        variance, bias = of(logs, 700)
        self.assertAllClose(variance, relative, 1e-3)
        self.assertAllClose(bias, -relative / 2, 1e-2)

    def test_variance_and_bias_are_right_on_average(self):
        # Log-normal weights of mean 1, so that log of the mean should be 0.
        logs = np.random.default_rng(3).standard_normal((20_000, 50)) - 0.5
        estimate = special.logsumexp(logs, axis=1) - np.log(50)
        variance, bias = of(logs, 50)
        self.assertAllClose(variance.mean() / estimate.var(), 1, 0.05)
        self.assertAllClose((estimate - bias).mean(), 0, atol=0.005)
        self.assertLess(estimate.mean(), -0.012)
        # The delta method's is too small.
        weights = special.softmax(logs, axis=1)
        delta = np.sum(weights**2, 1) - 1 / 50
        self.assertLess(delta.mean() / estimate.var(), 0.9)

    def test_one_weight_that_holds_all_has_a_large_finite_error(self):
        logs = np.zeros((1, 50))
        logs[0, 7] = 80.0
        variance, bias = of(logs, 50)
        self.assertAllInRange(np.sqrt(variance), 5, 20)
        self.assertAllInRange(bias, -20, -5)

    def test_one_weight_has_no_spread(self):
        self.assertAllEqual(np.isnan(of(np.zeros((2, 1)), 1)), np.ones((2, 2)))


class BootstrapTest(tf.test.TestCase):
    def test_is_the_normal_interval_of_many_values(self):
        values = np.random.default_rng(0).standard_normal(1000) + 3
        error = values.std() / 1000**0.5
        expected = stats.norm(values.mean(), error).ppf([0.025, 0.975])
        self.assertAllClose(bootstrap(values), expected, atol=0.15 * error)
        expected = stats.norm(values.mean(), error).ppf([0.25, 0.75])
        found = bootstrap(values, level=0.5)
        self.assertAllClose(found, expected, atol=0.15 * error)

    def test_covers_the_mean(self):
        # Of skewed values, in all but about 5% of data sets.
        values = np.random.default_rng(1).standard_exponential((300, 100))
        ends = np.array([bootstrap(row) for row in values])
        covers = (ends[:, 0] < 1) & (1 < ends[:, 1])
        self.assertBetween(covers.mean(), 0.90, 0.98)

    def test_the_seed_fixes_it_and_chunks_change_little(self):
        values = np.random.default_rng(0).standard_normal(200)
        one = bootstrap(values, seed=1)
        self.assertEqual(one, bootstrap(values, seed=1))
        self.assertNotEqual(one, bootstrap(values, seed=2))
        with mock.patch.object(errors_of_means, "NUMBERS_AT_ONCE", 60_000):
            self.assertEqual(one, bootstrap(values, seed=1))

    def test_values_that_are_equal_and_one_alone(self):
        self.assertAllClose(bootstrap(np.full(7, -90.0)), [-90, -90], 1e-12)
        self.assertIsNone(bootstrap(np.ones(1)))


class AveragesTest(tf.test.TestCase):
    def test_have_their_errors(self):
        log_p = np.random.default_rng(0).standard_normal(50) - 90
        found = averages(log_p, np.full(50, 0.04), np.full(50, -0.02))
        expected = {
            "num_examples": 50,
            "log_marginal_likelihood": log_p.mean(),
            "standard_error": stats.sem(log_p),
            # That of a mean of independent estimates.
            "monte_carlo_standard_error": 0.2 / 50**0.5,
            "log_marginal_likelihood_interval": bootstrap(log_p),
            "monte_carlo_bias": -0.02,
        }
        self.assertSameElements(found, expected)
        for name, value in expected.items():
            self.assertAllClose(found[name], value, 1e-9, msg=name)

    def test_what_is_unknown_is_none(self):
        unknown = np.full(1, np.nan)
        found = averages(np.full(1, -90.0), unknown, unknown)
        self.assertEqual(found.pop("num_examples"), 1)
        self.assertEqual(found.pop("log_marginal_likelihood"), -90)
        self.assertAllInSet([value is None for value in found.values()], [True])
        self.assertIsNone(
            averages(np.zeros(2), np.ones(2), None)["monte_carlo_bias"]
        )
