import math
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from scipy import stats
from small import IMAGE_SHAPE, combined, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.evaluation import aggregate_posterior, decomposition
from vae_tf.evaluation.decomposition import bits_per_dimension, decompose


def batches(images, size=4):
    return tf.data.Dataset.from_tensor_slices(images).batch(size)


def vae_with(distances, raw_scale=-1.0, **kwargs):
    """A VAE with q(z|x) = N(z; distances * (number of pixels set), scale^2),
    and that scale.
    """
    keras.utils.set_random_seed(0)
    dim = len(distances)
    vae = vae_tf.VAE(
        vae_tf.Encoder(dim, network=keras.layers.Flatten()),
        vae_tf.Decoder(IMAGE_SHAPE, hidden_units=(5,)),
        **kwargs,
    )
    head = vae.encoder.posterior.parameters
    rows = np.r_[distances, np.zeros(dim)]
    head.kernel.assign(np.tile(rows, (12, 1)))
    head.bias.assign(np.r_[np.zeros(dim), np.full(dim, raw_scale)])
    scale = vae.encoder(tf.zeros((1, *IMAGE_SHAPE))).stddev().numpy()[0, 0]
    return vae, scale


def with_pixels(*counts):
    """An image with each of these numbers of pixels set."""
    rows = np.arange(12) < np.reshape(counts, (-1, 1))
    return rows.reshape(-1, *IMAGE_SHAPE).astype(np.float32)


class DecompositionTest(parameterized.TestCase, tf.test.TestCase):
    @pytest.mark.slow
    def test_terms_are_integrals_over_the_aggregate_posterior(self):
        vae, scale = vae_with([0.7])
        counts = np.array([0, 1, 1, 2, 5, 6])
        found = decompose(vae, batches(with_pixels(*counts)), 4000)
        # On a grid: q(z|x_n) [N, G], q(z) [G].
        z = np.linspace(-10, 15, 20_001)
        q = stats.norm(0.7 * counts[:, np.newaxis], scale).pdf(z)
        aggregate = q.mean(0)
        width, tiny = z[1] - z[0], 1e-300
        information = (
            np.sum(q * np.log((q + tiny) / (aggregate + tiny)), 1) * width
        )
        marginal = width * np.sum(
            aggregate * (np.log(aggregate + tiny) - stats.norm.logpdf(z))
        )
        # Of an average of 4,000 numbers between -inf and log 6, of sd <= 0.8.
        self.assertAllClose(found.mutual_information, information, atol=0.05)
        self.assertAllClose(found.marginal_kl.mean(), marginal, atol=0.03)

    def test_terms_add_up(self):
        self.assert_terms_add_up({"prior": "mixture"})

    @parameterized.named_parameters(
        ("mean_field", {}),
        ("full_covariance", {"posterior": "full_covariance"}),
        ("vamp", {"prior": "vamp"}),
    )
    @pytest.mark.slow
    def test_terms_of_each_family_add_up(self, families):
        self.assert_terms_add_up(families)

    def assert_terms_add_up(self, families):
        vae, images = combined(**families), random_bits(9)
        found = decompose(vae, batches(images), 500, seed=3)
        measured = decomposition.summary(found, IMAGE_SHAPE)
        self.assertAllClose(
            found.kl, found.mutual_information + found.marginal_kl, 1e-6
        )
        self.assertAllClose(
            measured["elbo"], -measured["distortion"] - measured["rate"]
        )
        self.assertAllClose(
            measured["rate"],
            measured["mutual_information"] + measured["marginal_kl"],
        )
        # The ELBO is the one that the model has, by other draws.
        elbo = vae.elbo(images, seed=5, num_samples=2000)
        self.assertAllClose(measured["elbo"], np.mean(elbo), atol=0.05)

    @pytest.mark.slow
    def test_equal_posteriors_tell_nothing_of_the_image(self):
        vae, _ = vae_with([0.0, 0.0])
        found = decompose(vae, batches(random_bits(7)), 3)
        self.assertAllClose(found.mutual_information, np.zeros(7), atol=1e-5)
        self.assertAllClose(found.marginal_kl, found.kl, atol=1e-5)

    @pytest.mark.slow
    def test_posteriors_that_do_not_overlap_tell_all_of_it(self):
        vae, _ = vae_with([100.0])
        images = with_pixels(*range(9))
        found = decompose(vae, batches(images), 3)
        self.assertAllClose(
            found.mutual_information, np.full(9, math.log(9)), 1e-5
        )
        # Each image twice: which of the two it was, z does not tell.
        twice = np.concatenate([images, images])
        found = decompose(vae, batches(twice), 3)
        self.assertAllClose(
            found.mutual_information, np.full(18, math.log(9)), 1e-5
        )

    @pytest.mark.slow
    def test_information_is_at_most_log_n_at_every_draw(self):
        vae = small_vae()
        for seed in range(20):
            found = decompose(vae, batches(random_bits(5)), 1, seed)
            self.assertAllLess(found.mutual_information, math.log(5) + 1e-5)

    @pytest.mark.slow
    def test_of_many_images_information_is_that_of_the_distribution(self):
        # Images with a normal number of pixels would do: z = loc + scale eps
        # with loc in two places is a mixture; of 2 places, I < log 2, whether
        # it is of 2 images or of 200.
        vae, _ = vae_with([1.0])
        two = decompose(vae, batches(with_pixels(0, 1)), 20_000)
        many = decompose(
            vae, batches(with_pixels(*[0, 1] * 100), 50), 200, seed=1
        )
        self.assertAllClose(
            two.mutual_information.mean(),
            many.mutual_information.mean(),
            atol=0.02,
        )

    def test_kl_per_dimension_and_active_units(self):
        vae, scale = vae_with([0.5, 0.0, 0.05])
        counts = np.arange(12)
        found = decompose(vae, batches(with_pixels(*counts)), 1)
        loc = counts[:, np.newaxis] * [0.5, 0.0, 0.05]
        kl = 0.5 * (loc**2 + scale**2 - 1) - math.log(scale)
        self.assertAllClose(found.kl_per_dimension, kl.mean(0), 1e-5)
        self.assertAllClose(found.kl, kl.sum(1), 1e-5)
        self.assertAllClose(found.code_variance, loc.var(0, ddof=1), 1e-5)
        # Variances are 3.25, 0 and 0.0325.
        measured = decomposition.summary(found, IMAGE_SHAPE)
        self.assertEqual(measured["active_units"], 2)
        self.assertAllClose(sum(measured["kl_per_dimension"]), kl.sum(1).mean())
        mixture = decompose(combined(prior="mixture"), batches(random_bits(3)))
        self.assertIsNone(mixture.kl_per_dimension)

    @pytest.mark.slow
    def test_streaming_changes_nothing_and_the_seed_fixes_the_result(self):
        images = random_bits(10)
        whole = decompose(small_vae(), batches(images), 12, seed=1)
        vae = small_vae()
        with mock.patch.object(aggregate_posterior, "PAIRS_AT_ONCE", 28):
            found = decompose(vae, batches(images), 12, seed=1)
        for one, other in zip(whole, found):
            self.assertAllClose(one, other, 1e-5, 1e-5)
        other = decompose(vae, batches(images), 12, seed=2)
        self.assertNotAllClose(found.reconstruction, other.reconstruction)
        # Chunks of draws, of which the last reaches past M.
        vae = small_vae()
        with mock.patch.object(decomposition, "ROWS_AT_ONCE", 20):
            found = decompose(vae, batches(images), 401, seed=1)
        draws = vae.encoder(images).sample(20_000, seed=3)
        expected = tf.reduce_mean(vae.decoder(draws).log_prob(images), 0)
        self.assertAllClose(found.reconstruction, expected, atol=0.5)

    def test_follows_the_weights_after_training(self):
        vae, images = small_vae(), random_bits(6)
        before = decompose(vae, batches(images))
        bias = vae.encoder.posterior.parameters.bias
        bias.assign(bias + 0.5)
        after = decompose(vae, batches(images))
        self.assertNotAllClose(before.kl, after.kl)
        self.assertAllClose(
            after.kl,
            tfd.kl_divergence(vae.encoder(images), vae.prior_distribution()),
            1e-5,
        )

    @pytest.mark.slow
    def test_a_flow_has_all_but_the_aggregate_posterior(self):
        vae, images = combined(posterior="iaf"), random_bits(9)
        with self.assertRaisesRegex(
            vae_tf.UserError, "aggregate: expected False .* IAF.* 2 passes"
        ):
            decompose(vae, batches(images))
        found = decompose(vae, batches(images), 3000, aggregate=False)
        measured = decomposition.summary(found, IMAGE_SHAPE)
        self.assertIsNone(measured["mutual_information"])
        self.assertIsNone(measured["marginal_kl"])
        self.assertIsNone(measured["standard_error"]["marginal_kl"])
        elbo = vae.elbo(images, seed=5, num_samples=3000)
        self.assertAllClose(measured["elbo"], np.mean(elbo), atol=0.05)
        self.assertAllClose(
            found.code_variance,
            np.var(vae.encoder(images).mean(), axis=0, ddof=1),
            1e-4,
        )

    def test_one_image_has_no_spread(self):
        found = decompose(small_vae(), batches(random_bits(1)), 5)
        measured = decomposition.summary(found, IMAGE_SHAPE)
        self.assertIsNone(measured["active_units"])
        self.assertIsNone(measured["standard_error"]["rate"])
        self.assertAllClose(measured["mutual_information"], 0, atol=1e-5)

    @pytest.mark.slow
    def test_standard_error_is_the_spread_over_seeds_and_images(self):
        # Of images all alike, over draws alone.
        vae, images = small_vae(), np.repeat(random_bits(1), 50, 0)
        found = [
            decomposition.summary(
                decompose(vae, batches(images, 50), 2, seed), IMAGE_SHAPE
            )
            for seed in range(60)
        ]
        spread = np.std([f["distortion"] for f in found])
        claimed = np.mean([f["standard_error"]["distortion"] for f in found])
        self.assertBetween(claimed / spread, 0.7, 1.4)

    def test_bits_per_dimension(self):
        # Fair bits cost one bit each, levels that are all as likely 8.
        self.assertAllClose(
            bits_per_dimension(12 * math.log(0.5), (4, 3, 1)), 1
        )
        self.assertAllClose(
            bits_per_dimension(12 * math.log(1 / 256), (4, 3, 1)), 8
        )
        # A uniform density of dequantised pixels says the same.
        self.assertAllClose(bits_per_dimension(0.0, (4, 3, 1), 256), 8)
        found = decompose(small_vae(), batches(random_bits(5)))
        log_p = np.full(5, -12 * math.log(2))
        measured = decomposition.summary(
            found, IMAGE_SHAPE, log_marginal_likelihood=log_p
        )
        self.assertAllClose(measured["bits_per_dimension"], 1)
        self.assertAllClose(
            measured["elbo_bits_per_dimension"] * 12 * math.log(2),
            -measured["elbo"],
        )

    def test_refuses(self):
        vae = small_vae()
        with self.assertRaisesRegex(vae_tf.UserError, "integer >= 1, .* 0"):
            decompose(vae, batches(random_bits(2)), 0)
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            decompose(vae, batches(random_bits(2)).take(0))
        with self.assertRaisesRegex(vae_tf.UserError, "expected shape"):
            decompose(vae, batches(np.zeros((2, 5, 5, 1))))
