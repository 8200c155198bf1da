import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.evaluation import pareto


def k_hat(log_weights):
    """Of all of the log weights `[B, K]`."""
    count = log_weights.shape[1]
    length = pareto.tail_length(count) + 1
    largest = np.sort(log_weights, axis=1)[:, ::-1][:, :length]
    return pareto.shape(largest, count)


def generalised_pareto(k, shape, seed=0):
    """Log of draws whose distribution function is 1 - (1 + k y)^(-1/k)."""
    exponential = np.random.default_rng(seed).standard_exponential(shape)
    if k == 0:
        return np.log(exponential)
    return np.log(np.expm1(k * exponential) / k)


class ParetoTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(-0.3, 0.0, 0.3, 0.5, 0.7, 1.0, 1.5)
    def test_finds_the_shape_that_the_weights_were_drawn_with(self, k):
        # Excesses over a threshold have the same k. With M = 949 the estimate
        # has a standard deviation of (1 + k) / sqrt(M), and 10 weights of 1/2
        # pull it.
        found = k_hat(generalised_pareto(k, (40, 100_000)))
        length = pareto.tail_length(100_000)
        self.assertEqual(length, 949)
        expected = (length * k + 5) / (length + 10)
        error = (1 + k) / np.sqrt(length)
        self.assertAllClose(found.mean(), expected, atol=4 * error / 40**0.5)
        self.assertBetween(found.std() / error, 0.7, 1.4)

    def test_small_tails_are_pulled_to_a_half(self):
        # As by 10 weights more: (10 k + 5) / 20 with K = 50, M = 10.
        found = k_hat(generalised_pareto(2.0, (4000, 50)))
        self.assertAllClose(found.mean(), 1.25, atol=0.2)

    @parameterized.parameters((0.3, 0.0), (0.9, 0.19), (0.6, 0.64))
    def test_normal_proposals_for_a_normal(self, scale, k):
        # p = N(0, 1), q = N(0, s^2): w = s exp(-z^2 (1 - 1/s^2) / 2) has tail
        # P(w > t) ~ t^(-1/k), k = 1 - s^2: those have 1/k moments. (From
        # E[w^a] < infinity iff a (1 - s^2) < 1.)
        z = scale * np.random.default_rng(1).standard_normal((100, 20_000))
        found = k_hat(np.log(scale) + z**2 * (scale**-2 - 1) / 2)
        self.assertAllClose(found.mean(), 1 - scale**2, atol=0.1)

    def test_wider_proposals_have_bounded_weights(self):
        # p = N(0, 1), q = N(0, s^2) with s > 1: w <= s, and near it P(w > s -
        # y) ~ y^(1/2), a generalised Pareto tail with k = -2.
        z = 1.5 * np.random.default_rng(1).standard_normal((50, 20_000))
        found = k_hat(-(z**2) * (1 - 1.5**-2) / 2)
        self.assertAllLess(found, 0)

    def test_flags_what_has_no_mean_and_not_what_has_all_moments(self):
        heavy = k_hat(generalised_pareto(1.2, (200, 1000)))
        light = k_hat(np.random.default_rng(0).standard_normal((200, 1000)))
        self.assertGreater(np.mean(heavy > pareto.UNRELIABLE), 0.95)
        self.assertLess(np.mean(light > pareto.UNRELIABLE), 0.05)

    def test_scale_does_not_matter(self):
        logs = generalised_pareto(0.4, (5, 1000))
        expected = k_hat(logs)
        for shift in (-1000.0, -100.0, 700.0):
            self.assertAllClose(k_hat(logs + shift), expected, 1e-6)

    def test_only_the_largest_matter_and_rows_have_nothing_to_do(self):
        logs = generalised_pareto(0.4, (5, 1000))
        expected = k_hat(logs)
        rest = np.sort(logs, axis=1)[:, ::-1][:, :200]
        self.assertAllClose(pareto.shape(rest, 1000), expected)
        for row, one in zip(logs, expected):
            self.assertAllClose(k_hat(row[np.newaxis]), [one])

    def test_weights_that_are_equal(self):
        self.assertAllEqual(
            k_hat(np.full((2, 1000), -90.0)), [-np.inf, -np.inf]
        )
        # All but a few: the estimate is a number.
        logs = np.zeros((1, 1000))
        logs[0, :3] = [1.0, 2.0, 3.0]
        self.assertAllInRange(k_hat(logs), -10, 10)

    def test_too_few_weights_have_no_tail(self):
        self.assertEqual(pareto.MIN_DRAWS, 25)
        self.assertAllEqual(
            np.isnan(k_hat(np.random.default_rng(0).random((3, 24)))),
            [True] * 3,
        )
        found = k_hat(np.random.default_rng(0).random((3, 25)))
        self.assertAllEqual(np.isfinite(found), [True] * 3)
        # min(K / 5, 3 sqrt(K)), rounded up.
        lengths = {1: 0, 24: 0, 25: 5, 50: 10, 225: 45, 1000: 95, 5000: 213}
        for count, length in lengths.items():
            self.assertEqual(pareto.tail_length(count), length, count)

    def test_weights_that_are_no_numbers(self):
        logs = generalised_pareto(0.4, (4, 1000))
        expected = k_hat(logs)
        logs[0, 0], logs[1] = np.nan, -np.inf
        # NaN sorts last: put it first, as a stream of the largest may.
        largest = -np.sort(-logs, axis=1)[:, :96]
        largest[0, 0] = np.nan
        found = pareto.shape(largest, 1000)
        self.assertAllEqual(np.isnan(found), [True, True, False, False])
        self.assertAllClose(found[2:], expected[2:])
