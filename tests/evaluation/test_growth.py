from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from linear import SCALE, grey, linear_vae
from small import random_bits, small_vae

import vae_tf
from vae_tf import objectives
from vae_tf.evaluation import growth, importance
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.noise import key, standard_normal

IMAGES = random_bits(8)


def tolerated(vae, tolerance, most=1000):
    """Estimates of the images, from K = 40 to so many."""
    with mock.patch.object(growth, "MOST", most):
        dataset = tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)
        return importance.evaluate(vae, dataset, 40, 1, tolerance=tolerance)


class GrowthTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Few draws in a call; a model is compiled for them once.
        few = mock.patch.multiple(growth, STRETCH=40, PLACES=8)
        few.start()
        cls.addClassCleanup(few.stop)
        cls.vae = small_vae()

    def test_stops_at_the_tolerance_or_at_the_most(self):
        found = tolerated(self.vae, 0.1)
        reached = np.sqrt(found.variance) < 0.1
        # 40, then doubled; 1,000 in whole stretches of 40.
        stages = [40, 80, 160, 320, 640, 1000]
        self.assertContainsSubset(found.num_samples, stages)
        self.assertGreater(len(set(found.num_samples)), 2)
        self.assertAllEqual(found.num_samples[~reached], [1000] * sum(~reached))
        self.assertAllInRange(np.mean(reached), 0.1, 1)
        # One stage before, an image had not reached it.
        before = tolerated(self.vae, 0.1, most=500)
        self.assertAllLessEqual(before.num_samples, 500)
        further = found.num_samples > before.num_samples
        self.assertAllGreaterEqual(np.sqrt(before.variance[further]), 0.1)

    @pytest.mark.slow
    def test_all_draws_count_once(self):
        found = tolerated(self.vae, 1e-6, most=170)
        self.assertAllEqual(found.num_samples, [160] * 8)
        # Image 5 is the second of the second batch. Its first 40 draws are its
        # place's of the batch; the others', 16 at a time, are its own.
        batched = standard_normal((40, 4, 2), key("importance", 1, 4 * 2**32))
        own = [
            standard_normal(
                (16, 2), key("importance", 1, 5 * 2**32 + 2**31 + number)
            )
            for number in range(9)
        ]
        noise = tf.concat(
            [
                batched[:, 1],
                *(
                    tf.concat(own[start : start + 3], 0)[:40]
                    for start in (0, 3, 6)
                ),
            ],
            axis=0,
        )
        draws = self.vae.draws(IMAGES[5:6], noise[:, tf.newaxis])
        log_weights = draws.log_weights
        self.assertAllClose(
            found.log_marginal_likelihood[5:6],
            objectives.importance_weighted_bound(log_weights),
            1e-4,
        )
        self.assertAllClose(
            found.reconstruction[5:6], tf.reduce_mean(draws.log_likelihood, 0)
        )
        weights = tf.nn.softmax(log_weights, axis=0)
        self.assertAllClose(
            found.effective_sample_size[5:6],
            1 / tf.reduce_sum(weights**2, 0),
            1e-3,
        )
        without = [
            objectives.importance_weighted_bound(
                np.delete(log_weights, number, axis=0)
            )[0]
            for number in range(160)
        ]
        self.assertAllClose(
            found.variance[5], 159 * np.var(without, dtype=float), 2e-2
        )

    def test_draws_do_not_depend_on_who_is_left(self):
        none = growth.Moments(0.0, 0.0, -np.inf, -np.inf, *np.zeros((2, 0)))
        found = {}
        for wanted in ([7], list(range(8))):
            (numbers, estimates), *_ = growth.grow(
                self.vae, [IMAGES], dict.fromkeys(wanted, none), 40, 1, 0.1
            )
            self.assertEqual(numbers, wanted)
            found[len(wanted)] = estimates
        for name in ("log_marginal_likelihood", "variance", "reconstruction"):
            alone, among = (getattr(found[count], name) for count in (1, 8))
            self.assertAllClose(alone[0], among[7], 1e-6)
            self.assertNotAllClose(among[6], among[7])

    @pytest.mark.slow
    def test_stopping_by_the_error_biases_less_than_the_error(self):
        # Images stop at K of their own, by errors that their draws say of
        # themselves: the error is still what it says.
        vae, weights, offset = linear_vae()
        images = grey(20)
        truth = linear_gaussian(images, weights, offset, SCALE)[0]
        with mock.patch.multiple(growth, PLACES=64, MOST=6000):
            found = [
                importance.evaluate(vae, [images], 40, seed, tolerance=0.08)
                for seed in range(60)
            ]
        error = np.array([f.log_marginal_likelihood for f in found]) - truth
        stated = np.sqrt([f.variance for f in found])
        self.assertGreater(len(np.unique([f.num_samples for f in found])), 2)
        self.assertAllLess(stated, 0.08)
        self.assertLess(np.mean(np.abs(error) > 3.5 * stated), 0.005)
        self.assertBetween(np.sqrt(np.mean((error / stated) ** 2)), 0.9, 1.1)
        # Of 1,200 errors, independent of each other.
        bias = error - np.array([f.bias for f in found])
        self.assertLess(
            np.abs(np.mean(bias)), 3.5 * np.mean(stated) / np.sqrt(1200)
        )

    def test_refuses(self):
        for tolerance in (0, -1.0, float("nan"), float("inf"), "0.1", True):
            with self.assertRaisesRegex(
                vae_tf.UserError, "tolerance: expected .* > 0 .* received"
            ):
                tolerated(self.vae, tolerance)
