import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from linear import SCALE, grey, linear_vae
from small import random_bits, small_vae
from tensorflow_probability import distributions as tfd

from vae_tf.decoder import log_prob_of_pixels
from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.evaluation.moments import bound_sizes, importance_moments
from vae_tf.noise import key, standard_normal


class MomentsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 7, 10)
    def test_no_draw_beyond_k_counts(self, num_samples):
        # Also in a KL divergence without a closed form, whatever the chunks.
        vae, images = small_vae(prior="mixture"), random_bits(3)
        noise = tf.random.stateless_normal((12, 3, 2), seed=[1, 2])
        draws = vae.draws(images, noise[:num_samples])
        moments = importance_moments(
            vae,
            images,
            vae.encoder(images),
            vae.prior_distribution(),
            num_samples,
            4,
            lambda chunk: noise[4 * chunk : 4 * chunk + 4],
            length=5,
        )
        by_pixel = importance_moments(
            vae,
            images,
            vae.encoder(images),
            vae.prior_distribution(),
            num_samples,
            4,
            lambda chunk: noise[4 * chunk : 4 * chunk + 4],
            by_pixel=True,
        )
        pixels = log_prob_of_pixels(vae.decoder(draws.z), images)
        self.assertAllClose(
            by_pixel.reconstruction, tf.reduce_mean(pixels, 0), 1e-5
        )
        self.assertAllClose(by_pixel.log_sum, moments.log_sum, 1e-5)
        self.assertAllClose(
            moments.kl, tf.reduce_mean(draws.log_q - draws.log_prior, 0), 1e-5
        )
        self.assertAllClose(
            moments.reconstruction,
            tf.reduce_mean(draws.log_likelihood, 0),
            1e-5,
        )
        log_weights = draws.log_weights
        self.assertAllClose(
            moments.log_sum, tf.reduce_logsumexp(log_weights, 0), 1e-5
        )
        self.assertAllClose(
            moments.log_sum_of_squares,
            tf.reduce_logsumexp(2 * log_weights, 0),
            1e-5,
        )
        ordered = np.sort(log_weights, axis=0)[::-1][:5]
        self.assertAllClose(moments.largest[: len(ordered)], ordered, 1e-5)

    def test_sizes_of_groups(self):
        self.assertEqual(bound_sizes(1), (1,))
        self.assertEqual(bound_sizes(10), (1, 2, 5, 10))
        self.assertEqual(bound_sizes(70), (1, 2, 5, 10, 20, 50, 70))

    def test_bounds_are_averages_over_whole_groups(self):
        # Groups lie across chunks of 4, and 23 draws hold 4 groups of 5.
        vae, images = small_vae(), random_bits(3)
        noise = tf.random.stateless_normal((24, 3, 2), seed=[1, 2])
        sizes = bound_sizes(23)
        moments = importance_moments(
            vae,
            images,
            vae.encoder(images),
            vae.prior_distribution(),
            23,
            4,
            lambda chunk: noise[4 * chunk : 4 * chunk + 4],
            sizes=sizes,
        )
        log_weights = vae.draws(images, noise[:23]).log_weights.numpy()
        for size, found in zip(sizes, moments.bounds, strict=True):
            groups = np.split(log_weights[: 23 // size * size], 23 // size)
            of_groups = [
                np.log(np.mean(np.exp(np.float64(group)), axis=0))
                for group in groups
            ]
            self.assertAllClose(found, np.mean(of_groups, axis=0), 1e-5)

    def test_a_posterior_that_is_exact_leaves_no_error(self):
        # Every weight is p(x) itself; the encoder's own are not.
        vae, weights, offset = linear_vae()
        images = grey(4)
        exact = linear_gaussian(images, weights, offset, SCALE)
        scale_tril = np.linalg.cholesky(exact.covariance).astype(np.float32)
        posterior = tfd.MultivariateNormalTriL(
            exact.loc.astype(np.float32), scale_tril
        )

        def of(posterior):
            return importance_moments(
                vae,
                images,
                posterior,
                vae.prior_distribution(),
                20,
                8,
                lambda chunk: standard_normal((8, 4, 2), key("elbo", 1, chunk)),
            )

        found, of_encoder = of(posterior), of(vae.encoder(images))
        log_p = found.log_sum - np.log(20)
        self.assertAllClose(log_p, exact.log_marginal_likelihood, 1e-4)
        # (sum w)^2 / sum w^2 = K
        self.assertAllClose(
            2 * found.log_sum - found.log_sum_of_squares,
            [np.log(20)] * 4,
            atol=1e-3,
        )
        elbo = of_encoder.reconstruction - of_encoder.kl
        self.assertAllLess(elbo - exact.log_marginal_likelihood, -0.1)
