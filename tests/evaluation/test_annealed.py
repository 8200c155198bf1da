import math
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import combined, random_bits, small_vae

import vae_tf
from vae_tf.evaluation import annealed, annealing, exact
from vae_tf.evaluation.errors_of_means import averages
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.noise import standard_normal

STEPS, CHAINS, IMAGES = 12, 64, 20


# Pilots as many as chains are compiled once for both.
@mock.patch.object(annealing, "PILOT_CHAINS", CHAINS)
class AnnealedTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae, cls.weights, cls.offset = linear_vae()
        cls.images = grey(IMAGES)

    def estimate(self, images, seed=1, **kwargs):
        return annealed.annealed(
            self.vae, images, STEPS, CHAINS, seed, **kwargs
        )

    def exact(self, images):
        return linear_gaussian(images, self.weights, self.offset, SCALE)[0]

    def assert_agree(self, found, truth):
        error = np.sqrt(found.variance)
        z_scores = (found.log_marginal_likelihood - found.bias - truth) / error
        self.assertLess(np.abs(z_scores).max(), 4)
        # The errors are of the right size, not merely large.
        self.assertBetween(np.sqrt(np.mean(z_scores**2)), 0.5, 1.5)

    def test_agrees_with_the_closed_form_within_its_error(self):
        found = self.estimate(self.images)
        self.assert_agree(found, self.exact(self.images))
        self.assertAllInRange(found.acceptance, 0.5, 0.8)
        self.assertAllInRange(found.effective_sample_size, 1, CHAINS)
        # Better than as many draws of importance sampling.
        noise = standard_normal((10_000, IMAGES, 2), [1, 2])
        log_weights = self.vae.draws(self.images, noise).log_weights
        squares = 2 * tf.reduce_logsumexp(log_weights, axis=0)
        ratio = tf.reduce_logsumexp(2 * log_weights, axis=0) - squares
        without = (10_000 * np.exp(ratio) - 1) / CHAINS
        self.assertLess(np.mean(found.variance), 0.6 * np.mean(without))

    def test_finds_its_way_from_the_prior(self):
        found = self.estimate(self.images, start="prior")
        self.assert_agree(found, self.exact(self.images))
        self.assertAllInRange(found.acceptance, 0.4, 0.8)

    def test_stated_error_is_the_spread_over_seeds(self):
        truth = self.exact(self.images)
        found = [self.estimate(self.images, seed=s) for s in range(20)]
        log_p = np.array([f.log_marginal_likelihood for f in found])
        claimed = np.mean([f.variance for f in found], axis=0)
        ratio = np.sqrt(claimed / log_p.var(axis=0, ddof=1))
        self.assertBetween(np.mean(ratio), 0.85, 1.15)
        # The mean weight is p(x), without bias.
        ratios = np.exp(log_p - truth)
        error = ratios.std() / math.sqrt(ratios.size)
        self.assertAllClose(ratios.mean(), 1, 0, 4 * error)
        # A function of the seed.
        for values, same in zip(found[1], self.estimate(self.images)):
            self.assertAllEqual(values, same)
        self.assertNotAllClose(log_p[0], log_p[1], 1e-6)

    def test_lower_and_upper_bounds_enclose_the_truth(self):
        found = [
            annealed.bidirectional(self.vae, IMAGES, STEPS, CHAINS, seed)
            for seed in range(10)
        ]
        truth = [
            self.exact(self.vae.sample(IMAGES, seed)) for seed in range(10)
        ]
        below = np.ravel([f.lower for f in found] - np.array(truth))
        above = np.ravel([f.upper for f in found] - np.array(truth))
        for missed in (-below, above):
            error = missed.std() / math.sqrt(missed.size)
            self.assertGreater(missed.mean(), -2 * error)
            self.assertLess(missed.mean(), 0.25)
        gap = np.ravel([f.gap for f in found])
        self.assertGreater(gap.mean(), 3 * gap.std() / math.sqrt(gap.size))
        self.assertAllClose(found[0].gap, found[0].upper - found[0].lower)
        self.assertAllInRange(found[0].acceptance, 0.5, 0.8)

    def test_averages_over_a_dataset_with_a_short_last_batch(self):
        images = grey(IMAGES + 3)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(IMAGES)
        found = annealed.evaluate(self.vae, dataset, STEPS, CHAINS, seed=1)
        first = self.estimate(images[:IMAGES])
        last = self.estimate(images[IMAGES:], first=IMAGES)
        for values, start, end in zip(found, first, last):
            self.assertAllEqual(values, np.concatenate([start, end]))
        measured = annealed.summary(found, STEPS, CHAINS)
        expected = averages(*found[:3]) | {
            "effective_sample_size": np.median(found.effective_sample_size),
            "acceptance": np.mean(found.acceptance),
            "num_annealing_steps": STEPS,
            "num_chains": CHAINS,
        }
        self.assertSameElements(measured, expected)
        for name, value in expected.items():
            self.assertAllClose(measured[name], value, 1e-6, msg=name)
        self.assertIsNone(annealed.summary(found, 1, CHAINS)["acceptance"])

    def test_refuses(self):
        vae, bits = small_vae(), random_bits(2)
        for arguments, message in (
            ((0, 4, 1), "num_steps: expected an integer >= 1, received 0"),
            ((4, 0, 1), "num_chains: expected an integer >= 1, received 0"),
            ((4, 2.0, 1), "num_chains: .* received 2.0"),
            (
                (4, 2, 1, "q"),
                "start: expected one of encoder, prior, received 'q'",
            ),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                annealed.annealed(vae, bits, *arguments)
            with self.assertRaisesRegex(vae_tf.UserError, message):
                annealed.bidirectional(vae, 2, *arguments)
        with self.assertRaisesRegex(vae_tf.UserError, "num_images: .* 0"):
            annealed.bidirectional(vae, 0, 4, 2, 1)
        with self.assertRaisesRegex(vae_tf.UserError, r"in \[0, 1\]"):
            annealed.annealed(vae, np.full_like(bits, np.nan), 4, 2, 1)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            annealed.annealed(vae, random_bits(0), 4, 2, 1)
        empty = tf.data.Dataset.from_tensor_slices(bits).batch(2).take(0)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            annealed.evaluate(vae, empty, 4, 2, 1)

    @parameterized.product(
        likelihood=(
            "bernoulli",
            "continuous_bernoulli",
            "normal",
            "discretized_logistic",
        ),
        start=("encoder", "prior"),
        families=(
            ("mean_field", "vamp"),
            ("full_covariance", "mixture"),
            ("iaf", "standard_normal"),
        ),
    )
    @pytest.mark.slow
    def test_every_family_agrees_with_quadrature(
        self, likelihood, start, families
    ):
        posterior, prior = families
        vae = combined(likelihood, posterior, prior)
        # The model's own: other images may have a p(z|x) in parts too far from
        # each other for any chain to find.
        images = np.clip(vae.sample(10, seed=2), 0, 1)
        truth = exact.quadrature(vae, images).log_marginal_likelihood
        found = annealed.annealed(vae, images, 60, CHAINS, 1, start)
        error = np.sqrt(found.variance) + 1e-3  # of quadrature, of rounding
        missed = found.log_marginal_likelihood - found.bias - truth
        self.assertLess(np.abs(missed / error).max(), 4)
        self.assertLess(np.median(error), 1)
        drawn = annealed.bidirectional(vae, 10, 60, CHAINS, 1, start)
        spread = np.std(drawn.gap) / math.sqrt(10)
        self.assertBetween(drawn.gap.mean(), -4 * spread, 5)
