import math
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import grid, random_bits, small_vae

import vae_tf
from vae_tf.evaluation import exact
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.priors import Mixture


class QuadratureTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        latent_dim=(1, 2), posterior=("mean_field", "full_covariance")
    )
    def test_is_the_closed_form_of_a_linear_model(self, latent_dim, posterior):
        vae, weights, offset = linear_vae(latent_dim, posterior)
        images = grey(5)
        found = exact.quadrature(vae, images, 1e-5)
        expected = linear_gaussian(images, weights, offset, SCALE)
        # Rounding of float32 besides, which the stated error leaves out.
        self.assertAllClose(
            found.log_marginal_likelihood,
            expected.log_marginal_likelihood,
            0,
            2e-5,
        )
        self.assertAllInRange(found.quadrature_error, 0, 1e-5)

    def test_is_the_sum_over_a_grid_of_a_model_that_is_not_linear(self):
        vae, images = small_vae(), random_bits(9)
        z, log_cell = grid()
        z = tf.repeat(z[:, tf.newaxis], len(images), 1)
        expected = tf.reduce_logsumexp(
            vae.log_joint(images, z) + log_cell, axis=0
        )
        found = exact.quadrature(vae, images)
        self.assertAllClose(found.log_marginal_likelihood, expected, 1e-5, 1e-4)

    def test_probabilities_of_all_images_sum_to_one(self):
        # Images of 12 bits, of which there are 4,096.
        vae = small_vae(latent_dim=1)
        bits = np.unpackbits(np.arange(4096).astype(">u2").view("u1"))
        images = bits.reshape(-1, 16)[:, 4:].reshape(-1, 4, 3, 1)
        found = exact.quadrature(vae, images)
        total = np.exp(found.log_marginal_likelihood).sum()
        self.assertAllClose(total, 1.0, 1e-5)

    def test_elbo_falls_short_by_the_divergence_to_the_posterior(self):
        # log p(x) = ELBO + KL(q(z|x) || p(z|x)), on the linear model, whose
        # p(z|x) is normal (S19).
        vae, weights, offset = linear_vae()
        images = grey(3)
        q = vae.encoder(images)
        p = linear_gaussian(images, weights, offset, SCALE)
        inverse = np.linalg.inv(p.covariance)
        gap = p.loc - q.mean().numpy()
        variance = q.variance().numpy()
        kl = 0.5 * (
            variance @ np.diag(inverse)
            + np.sum(gap @ inverse * gap, -1)
            - 2
            + np.linalg.slogdet(p.covariance)[1]
            - np.log(variance).sum(-1)
        )
        elbo = vae.elbo(images, seed=1, num_samples=100_000)
        found = exact.quadrature(vae, images)
        self.assertAllClose(found.log_marginal_likelihood, elbo + kl, atol=0.03)

    def test_covers_every_component_of_the_prior(self):
        # A rare component far from the rest, where the likelihood is: beyond
        # any number of standard deviations of the mixture.
        vae, weights, offset = linear_vae(1, prior=Mixture(1, 100))
        vae.prior.loc.assign(np.r_[200.0, np.zeros(99)][:, np.newaxis])
        images = np.clip(grey(2), 0.4, 0.6)
        vae.decoder.likelihood.bias.assign_sub(
            np.reshape(200 * weights[:, 0], images.shape[1:])
        )
        with mock.patch.object(exact, "REACHES", (7.0,)):
            found = exact.quadrature(vae, images)
        scale = exact_scale(vae)
        expected = linear_gaussian(
            images, weights * scale, offset, SCALE
        ).log_marginal_likelihood - math.log(100)
        self.assertAllClose(found.log_marginal_likelihood, expected, 1e-4)

    def test_grid_is_refined_until_the_error_is_small(self):
        # A posterior of width 0.007 in a prior of width 1, of which q(z|x),
        # as wide as the prior, says nothing.
        vae, weights, offset = linear_vae(1, strength=20)
        vae.encoder.posterior.parameters.kernel.assign(
            tf.zeros_like(vae.encoder.posterior.parameters.kernel)
        )
        images = grey(4)
        expected = linear_gaussian(images, weights, offset, SCALE)
        found = exact.quadrature(vae, images)
        self.assertLess(np.sqrt(expected.covariance[0, 0]), 0.02)
        self.assertAllLess(found.quadrature_error, 1e-3)
        self.assertAllClose(
            found.log_marginal_likelihood,
            expected.log_marginal_likelihood,
            1e-5,
            1e-3,
        )
        # Where the grid may not be fine enough, the error says so.
        with mock.patch.dict(exact.MOST, {1: 128}):
            coarse = exact.quadrature(vae, images)
        missed = np.abs(
            coarse.log_marginal_likelihood - expected.log_marginal_likelihood
        )
        self.assertAllGreater(missed, 1e-3)
        self.assertAllGreater(coarse.quadrature_error, 1e-3)

    def test_region_grows_where_much_lies_at_the_border(self):
        # q(z|x) and p(z) are N(0, 1), p(x|z) is around z = 18 and wins.
        vae, weights, offset = linear_vae(1, strength=2)
        vae.encoder.posterior.parameters.kernel.assign(
            tf.zeros_like(vae.encoder.posterior.parameters.kernel)
        )
        shift = np.reshape(18 * weights[:, 0], (4, 3, 1))
        vae.decoder.likelihood.bias.assign_sub(shift)
        images = grey(2)
        found = exact.quadrature(vae, images)
        offset = vae.decoder.likelihood.bias.numpy()
        expected = linear_gaussian(images, weights, offset, SCALE)
        self.assertAllGreater(expected.loc, 15)
        self.assertAllClose(
            found.log_marginal_likelihood,
            expected.log_marginal_likelihood,
            1e-5,
        )
        with mock.patch.object(exact, "REACHES", (7.0,)):
            narrow = exact.quadrature(vae, images)
        self.assertAllGreater(narrow.quadrature_error, 0.5)

    def test_chunks_and_batches_change_nothing(self):
        vae, images = small_vae(), random_bits(7)
        whole = exact.quadrature(vae, images)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(3)
        vae = small_vae()  # compiled anew
        with (
            mock.patch.object(exact, "BLOCK", 512),
            mock.patch.object(exact, "ROWS_AT_ONCE", 48),
        ):
            found = exact.evaluate(vae, dataset)
        self.assertAllClose(
            found.log_marginal_likelihood,
            whole.log_marginal_likelihood,
            1e-5,
            1e-4,
        )

    def test_refuses(self):
        with self.assertRaisesRegex(
            vae_tf.UserError,
            "quadrature: expected a model of at most 2 latent dimensions, "
            "received D = 3",
        ):
            exact.quadrature(small_vae(latent_dim=3), random_bits(1))
        vae = small_vae()
        with self.assertRaisesRegex(vae_tf.UserError, "tolerance: .* > 0"):
            exact.quadrature(vae, random_bits(1), 0.0)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            exact.quadrature(vae, random_bits(0))
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            exact.evaluate(vae, tf.data.Dataset.from_tensor_slices([1]).take(0))


def exact_scale(vae):
    """Of a component of the prior."""
    return vae.prior_distribution().components_distribution.stddev()[0].numpy()
