from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import combined, random_bits, small_vae

from vae_tf.evaluation import annealing
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.noise import key, standard_normal


class ScheduleTest(tf.test.TestCase):
    def test_goes_from_0_to_1_slowly_at_both_ends(self):
        self.assertAllEqual(annealing.schedule(1), [0, 1])
        shares = annealing.schedule(100)
        self.assertEqual((shares[0], shares[-1], len(shares)), (0, 1, 101))
        self.assertAllClose(shares + shares[::-1], np.ones(101))
        steps = np.diff(shares)
        self.assertAllGreater(steps, 0)
        self.assertAllGreater(np.diff(steps[:50]), 0)
        self.assertBetween(steps.max() / steps.min(), 13, 15)


class PathTest(parameterized.TestCase, tf.test.TestCase):
    def test_one_step_is_the_importance_weight(self):
        # In either direction, in the coordinates of either start.
        vae, images = combined(posterior="iaf", prior="mixture"), random_bits(3)
        z = 0.5 * standard_normal((3, 2), [1, 2])
        log_joint = vae.log_joint(images, z)
        path = annealing.Path(vae, images, 1, 5, "encoder", 0)
        found, acceptance = path.weights(8)
        noise = standard_normal((8, 3, 2), key("annealing", 5, 1 << 24))
        draws = vae.draws(images, noise)
        self.assertAllClose(found, tf.transpose(draws.log_weights), 1e-4, 1e-4)
        self.assertAllEqual(np.isnan(acceptance), [True] * 3)
        back, _ = path.weights(8, z)
        expected = log_joint - vae.encoder(images).log_prob(z)
        for chain in back.T:
            self.assertAllClose(chain, expected, 1e-4, 1e-4)
        path = annealing.Path(vae, images, 1, 5, "prior", 0)
        back, _ = path.weights(8, z)
        expected = log_joint - vae.prior_distribution().log_prob(z)
        for chain in back.T:
            self.assertAllClose(chain, expected, 1e-4, 1e-4)

    def test_step_sizes_follow_the_path_and_the_image(self):
        # From p(z) to posteriors whose scale is 1/40 of its own.
        vae, weights, offset = linear_vae(1, strength=7)
        images = grey(4)
        exact = linear_gaussian(images, weights, offset, SCALE)
        with mock.patch.object(annealing, "PILOT_CHAINS", 64):
            path = annealing.Path(vae, images, 60, 1, "prior", 0)
            held = np.array(path.step_sizes)
            _, acceptance = path.weights(64)
        scale = np.sqrt(exact.covariance[0, 0])
        self.assertLess(scale, 1 / 30)
        first, last = held[2], held[-2]
        self.assertAllInRange(last / scale / first, 0.5, 2.5)
        self.assertAllInRange(acceptance, 0.45, 0.75)
        # The weights do not move them.
        self.assertAllEqual(path.step_sizes, held)

    def test_chunks_have_draws_of_their_own(self):
        vae, images = small_vae(), random_bits(3)
        with (
            mock.patch.object(annealing, "ROWS_AT_ONCE", 12),
            mock.patch.object(annealing, "PILOT_CHAINS", 3),
        ):
            path = annealing.Path(vae, images, 4, 1, "encoder", 0)
            found, _ = path.weights(8)
            again, _ = path.weights(8)
        self.assertEqual(found.shape, (3, 8))
        every = np.concatenate([found, again], axis=1)
        for row in every:
            self.assertLen(set(row), 16)
