import importlib
import math
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import random_bits, small_vae
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.evaluation.exact import quadrature
from vae_tf.evaluation.linear_gaussian import linear_gaussian


class LinearGaussianTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae, weights, offset = linear_vae(strength=1.0, alike=0.6)
        cls.images = grey(8)
        cls.true = linear_gaussian(cls.images, weights, offset, SCALE)
        cls.gaps = vae_tf.inference_gaps(cls.vae, cls.images, seed=1)

    def test_both_gaps_are_kl_divergences(self):
        gaps, true = self.gaps, self.true
        precision = np.linalg.inv(true.covariance)
        # Of the best that factorises; of the encoder, with the same true one.
        best = 0.5 * (
            np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1]
        )
        self.assertGreater(best, 0.05)
        off = np.abs(gaps.approximation - best)
        self.assertAllLess(off - 4 * gaps.approximation_error - 0.01, 0)
        q = self.vae.encoder(self.images)
        exact = (
            tf.constant(true.loc, tf.float32),
            tf.linalg.cholesky(tf.constant(true.covariance, tf.float32)),
        )
        away = (q.mean() - exact[0]).numpy()
        kl = 0.5 * (
            np.einsum("nd,dd->n", q.variance(), precision)
            + np.einsum("nd,de,ne->n", away, precision, away)
            - 2
            - np.log(q.variance()).sum(1)
            - np.linalg.slogdet(precision)[1]
        )
        off = np.abs(gaps.amortization + gaps.approximation - kl)
        error = np.hypot(gaps.amortization_error, gaps.approximation_error)
        self.assertAllLess(off - 4 * error - 0.01, 0)
        self.assertGreater(gaps.amortization.min(), 0.1)

    def test_they_add_up(self):
        gaps = self.gaps
        self.assertAllClose(
            gaps.elbo + gaps.amortization + gaps.approximation,
            gaps.log_marginal_likelihood,
            1e-5,
        )
        off = gaps.log_marginal_likelihood - self.true.log_marginal_likelihood
        self.assertAllLess(np.abs(off) - 4 * gaps.approximation_error, 0)

    def test_errors_of_averages_are_over_images(self):
        found = self.gaps.summary()
        for name in ("amortization", "approximation", "elbo"):
            values = getattr(self.gaps, name)
            self.assertAllClose(found[name], values.mean())
            self.assertAllClose(
                found[f"{name}_standard_error"],
                values.std(ddof=1) / math.sqrt(8),
            )
        self.assertEqual(found["family"], "mean_field")
        self.assertAllClose(
            found["amortization_monte_carlo_standard_error"],
            np.linalg.norm(self.gaps.amortization_error) / 8,
        )


class GapsTest(parameterized.TestCase, tf.test.TestCase):
    @pytest.mark.slow
    def test_log_p_is_that_of_quadrature(self):
        vae, images = small_vae(), random_bits(5)
        gaps = vae_tf.inference_gaps(vae, images, "full_covariance")
        exact = quadrature(vae, images)
        off = gaps.log_marginal_likelihood - exact.log_marginal_likelihood
        self.assertAllLess(np.abs(off) - 4 * gaps.approximation_error, 0)
        self.assertAllGreater(
            gaps.approximation + 4 * gaps.approximation_error, 0
        )

    @pytest.mark.slow
    def test_the_best_q_may_be_far_from_the_encoder(self):
        self.assert_best_of(2, ["encoder", "prior"])

    @pytest.mark.slow
    def test_in_more_dimensions_the_prior_is_no_place_to_start(self):
        self.assert_best_of(3, ["encoder"])

    def assert_best_of(self, latent_dim, starts):
        vae, images = small_vae(latent_dim), random_bits(12)
        steps = {"encoder": 2, "prior": 200}
        gaps_module = importlib.import_module("vae_tf.inference.gaps")
        found = [
            vae_tf.infer(
                vae,
                images,
                start=start,
                max_steps=steps[start],
                num_samples=50,
            )
            for start in starts
        ]
        with mock.patch.object(
            gaps_module,
            "infer",
            lambda vae, images, family, start, **_: found[starts.index(start)],
        ):
            gaps = vae_tf.inference_gaps(vae, images, num_samples=50)
        elbos = np.stack([local.elbo for local in found])
        self.assertAllClose(gaps.refined_elbo, elbos.max(0), 1e-5)
        self.assertAllEqual(np.unique(elbos.argmax(0)), range(len(starts)))

    @parameterized.parameters(24, 0, 10.5)
    def test_too_few_draws(self, samples):
        with self.assertRaisesRegex(vae_tf.UserError, "num_samples"):
            vae_tf.inference_gaps(
                small_vae(), random_bits(2), num_samples=samples
            )

    def test_an_encoder_of_another_family(self):
        class Shifted(vae_tf.MeanField):
            def call(self, features):
                normal = super().call(features)
                return tfd.TransformedDistribution(
                    normal, tfb.Shift(tf.ones(2))
                )

        vae = small_vae(posterior=Shifted(2))
        with self.assertRaisesRegex(vae_tf.UserError, "mean_field, full"):
            vae_tf.inference_gaps(vae, random_bits(2))
