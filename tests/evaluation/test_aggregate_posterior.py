import math
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import combined, random_bits

import vae_tf
from vae_tf.evaluation import aggregate_posterior


def batches(images, size=4):
    return tf.data.Dataset.from_tensor_slices(images).batch(size)


class AggregatePosteriorTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("mean_field", "full_covariance")
    def test_is_the_mixture_of_all_posteriors(self, posterior):
        vae, images = combined(posterior=posterior), random_bits(9)
        z = np.random.default_rng(0).standard_normal((5, 3, 2), np.float32)
        expected = -math.log(9) + tf.reduce_logsumexp(
            vae.encoder(images).log_prob(z[..., np.newaxis, :]), axis=-1
        )
        seen = mock.Mock()
        with mock.patch.object(aggregate_posterior, "PAIRS_AT_ONCE", 28):
            found = aggregate_posterior.log_density(
                vae, batches(images), z, seen
            )
        self.assertEqual(found.dtype, np.float64)
        self.assertAllClose(found, expected, 1e-5)
        self.assertEqual(seen.call_count, 3)

    def test_integrates_to_one(self):
        vae, images = combined(), random_bits(9)
        axis = np.linspace(-8, 8, 161, dtype=np.float32)
        z = np.stack(np.meshgrid(axis, axis), -1)
        found = aggregate_posterior.log_density(vae, batches(images), z)
        self.assertAllClose(np.exp(found).sum() * 0.1**2, 1, 1e-4)

    def test_refuses_a_flow(self):
        with self.assertRaisesRegex(
            vae_tf.UserError, "aggregate: expected False .* IAF.* 2 passes"
        ):
            aggregate_posterior.log_density(
                combined(posterior="iaf"), batches(random_bits(2)), np.ones(2)
            )
