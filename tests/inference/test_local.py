import functools

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae

import vae_tf
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.inference.families import FAMILIES
from vae_tf.inference.weights import log_weights

COUNT = 6


@functools.cache
def known():
    """A model whose posterior is known, images, and what is true of them."""
    vae, weights, offset = linear_vae(strength=1.0, alike=0.6)
    images = grey(COUNT)
    return vae, images, linear_gaussian(images, weights, offset, SCALE)


@functools.cache
def inferred(family, start):
    vae, images, _ = known()
    return vae_tf.infer(vae, images, family=family, start=start, seed=1)


class LinearGaussianTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("encoder", "prior")
    def test_mean_field_is_the_best_that_factorises(self, start):
        _, _, true = known()
        local = inferred("mean_field", start)
        # argmin KL(q || N(m, M^-1)): loc = m, scale_d = M_dd^-1/2.
        scale = np.linalg.inv(true.covariance).diagonal() ** -0.5
        q = local.posterior
        self.assertEqual((q.batch_shape, q.event_shape), ([COUNT], [2]))
        self.assertAllClose(
            (q.mean() - true.loc) / scale, 0 * true.loc, atol=0.06
        )
        self.assertAllClose(q.stddev() / scale, 1 + 0 * true.loc, atol=0.04)
        # What is left is KL(q || p(z|x)), the approximation gap.
        gap = -np.log(scale).sum() + np.linalg.slogdet(true.covariance)[1] / 2
        self.assertGreater(gap, 0.05)
        error = 4 * local.elbo_error + 0.01
        expected = true.log_marginal_likelihood - gap
        self.assertAllLess(np.abs(local.elbo - expected) - error, 0)

    @parameterized.parameters("encoder", "prior")
    def test_full_covariance_is_the_true_posterior(self, start):
        _, _, true = known()
        local = inferred("full_covariance", start)
        deviation = np.sqrt(np.diag(true.covariance))
        off = (local.posterior.mean() - true.loc) / deviation
        self.assertAllClose(off, 0 * off, atol=0.05)
        self.assertAllClose(
            local.posterior.covariance() / np.outer(deviation, deviation),
            [true.covariance / np.outer(deviation, deviation)] * COUNT,
            atol=0.05,
        )
        # Where q is p(z|x), each draw of the ELBO is log p(x).
        self.assertAllClose(local.elbo, true.log_marginal_likelihood, atol=0.01)
        self.assertAllLess(local.elbo_error, 0.01)

    @pytest.mark.slow
    def test_iaf_is_between_mean_field_and_log_p(self):
        _, _, true = known()
        local, normal = (
            inferred("iaf", "prior"),
            inferred("mean_field", "prior"),
        )
        error = 4 * np.hypot(local.elbo_error, normal.elbo_error)
        self.assertAllGreater(local.elbo - normal.elbo + error, 0)
        self.assertGreater(np.mean(local.elbo - normal.elbo), 0.05)
        above = local.elbo - true.log_marginal_likelihood
        self.assertAllLess(above - 4 * local.elbo_error, 0)
        self.assertAllInRange(local.num_steps, 300, 2400)

    def test_no_image_ends_below_its_encoder(self):
        vae, images, _ = known()
        start = FAMILIES["mean_field"].start(vae.encoder(images))
        amortized = log_weights(
            vae, tf.constant(images), "mean_field", start, 512, seed=1
        )
        local = inferred("mean_field", "encoder")
        gain = local.elbo - amortized.mean(0)
        self.assertAllGreater(gain, -0.05)  # on equal noise
        self.assertGreater(np.mean(gain), 0.1)
        self.assertAllEqual(local.converged, [True] * COUNT)

    def test_theta_is_held_and_the_seed_fixes_the_rest(self):
        vae, images, _ = known()
        before = [np.array(v) for v in vae.trainable_variables]
        again = vae_tf.infer(vae, images, start="prior", seed=1)
        for value, old in zip(vae.trainable_variables, before, strict=True):
            self.assertAllEqual(value, old)
        local = inferred("mean_field", "prior")
        self.assertAllEqual(again.posterior.mean(), local.posterior.mean())
        self.assertAllEqual(again.elbo, local.elbo)


class MistakesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ({"family": "normal"}, "family"),
        ({"start": "zero"}, "start"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"num_samples": 1.5}, "num_samples"),
        ({"images": np.full((2, 4, 3, 1), np.nan, np.float32)}, "images"),
        ({"images": np.zeros((0, 4, 3, 1), np.float32)}, "images"),
        ({"images": np.zeros((2, 5, 3, 1), np.float32)}, "images"),
    )
    def test_one_line(self, wrong, word):
        vae, images, _ = known()
        with self.assertRaisesRegex(vae_tf.UserError, word):
            vae_tf.infer(vae, **({"images": images} | wrong))

    def test_a_flow_of_one_dimension(self):
        vae, *_ = linear_vae(latent_dim=1)
        with self.assertRaisesRegex(vae_tf.UserError, "one latent dimension"):
            vae_tf.infer(vae, grey(2), family="iaf")
