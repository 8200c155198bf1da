import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from small import grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.priors import MixtureOfDiagonalNormals, MixtureOfNormals


class StandardNormalTest(tf.test.TestCase):
    def test_log_prob(self):
        z = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")
        p = vae_tf.StandardNormal(3).distribution()
        self.assertEqual((p.batch_shape, p.event_shape), ([], [3]))
        expected = scipy.stats.norm.logpdf(z).sum(-1)
        self.assertAllClose(p.log_prob(z), expected, 1e-5, 1e-5)

    def test_draws(self):
        draws = vae_tf.StandardNormal(2).distribution().sample(50_000, seed=1)
        self.assertAllClose(np.mean(draws, 0), [0, 0], atol=5 / 50_000**0.5)
        self.assertAllClose(np.cov(draws.numpy().T), np.eye(2), atol=0.04)


class MixtureTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.prior = vae_tf.Mixture(2, num_components=3)
        self.prior.build()
        self.prior.logits.assign([0.0, 1.0, -1.0])
        self.prior.raw_scale.assign([[-1.0, 0.0], [0.5, 1.0], [-2.0, -2.0]])

    def test_log_prob(self):
        z = np.random.default_rng(0).standard_normal((6, 2)).astype("float32")
        scale = 1e-3 + np.logaddexp(0, self.prior.raw_scale.numpy())
        weights = scipy.special.log_softmax(self.prior.logits.numpy())
        each = scipy.stats.norm.logpdf(
            z[:, None], self.prior.loc.numpy(), scale
        ).sum(-1)
        expected = scipy.special.logsumexp(weights + each, -1)
        p = self.prior.distribution()
        self.assertEqual((p.batch_shape, p.event_shape), ([], [2]))
        self.assertAllClose(p.log_prob(z), expected, 1e-5, 1e-5)

    def test_integrates_to_one_and_draws_from_it(self):
        p = self.prior.distribution()
        z, log_cell = grid()
        mass = np.exp(p.log_prob(z) + log_cell)
        self.assertAllClose(mass.sum(), 1.0, 2e-3)
        draws = p.sample(20_000, seed=1).numpy()
        error = 5 * draws.std(0) / 20_000**0.5
        mean = (mass[:, None] * z).sum(0)
        self.assertAllGreater(error + 2e-3 - np.abs(draws.mean(0) - mean), 0)

    def test_everything_is_learned(self):
        with tf.GradientTape() as tape:
            log_p = self.prior.distribution().log_prob(tf.ones((4, 2)))
        for slope in tape.gradient(log_p, self.prior.trainable_variables):
            self.assertGreater(np.abs(slope).max(), 0)


class MixtureOfDiagonalNormalsTest(tf.test.TestCase):
    def test_is_exact_with_its_gradients_however_narrow(self):
        # Far from 0 in units of the scale, squares cancel to what is left.
        generator = np.random.default_rng(0)
        loc = generator.normal(0, 3, (7, 5)).astype(np.float32)
        scale = np.exp(generator.uniform(-9, 1, (7, 5))).astype(np.float32)
        which = generator.integers(0, 7, (2, 6))
        noise = generator.standard_normal((2, 6, 5))
        z = (loc[which] + scale[which] * noise).astype(np.float32)
        given = [tf.constant(each) for each in (z, loc, scale)]
        logits = tf.constant(np.linspace(-1, 1, 7), tf.float32)

        def log_prob(family, dtype):
            with tf.GradientTape() as tape:
                tape.watch(given)
                z, loc, scale = (tf.cast(each, dtype) for each in given)
                p = family(
                    tfd.Categorical(logits=tf.cast(logits, dtype)),
                    tfd.MultivariateNormalDiag(loc, scale),
                )
                log_p = p.log_prob(z)
            return log_p, tape.gradient(log_p, given)

        exact, slopes = log_prob(tfd.MixtureSameFamily, tf.float64)
        found, ours = log_prob(MixtureOfDiagonalNormals, tf.float32)
        self.assertEqual(found.dtype, tf.float32)
        self.assertAllClose(found, exact, 1e-6, 1e-5)
        for one, other in zip(ours, slopes, strict=True):
            size = np.abs(other).max()
            self.assertAllClose(one / size, other / size, 1e-5, 1e-6)


class MixtureOfNormalsTest(tf.test.TestCase):
    def test_of_components_that_share_a_scale(self):
        # As a head of the user's own may have it, of either kind.
        loc = tf.random.stateless_normal((4, 3), seed=[0, 1])
        z = tf.random.stateless_normal((2, 5, 3), seed=[0, 2])
        equal = tfd.Categorical(logits=tf.zeros(4))
        shared = tf.constant([[-0.5, 0, 0], [0.3, 1.5, 0], [-0.2, 0.1, 0.7]])
        for family, ours, normals in (
            (
                tfd.MixtureSameFamily,
                MixtureOfNormals,
                tfd.MultivariateNormalTriL(loc, shared),
            ),
            (
                tfd.MixtureSameFamily,
                MixtureOfDiagonalNormals,
                tfd.MultivariateNormalDiag(loc, tf.constant([0.5, 1.5, 0.7])),
            ),
        ):
            expected = family(equal, normals).log_prob(z)
            found = ours(equal, normals).log_prob(z)
            self.assertAllClose(found, expected, 1e-5, 1e-5)


class VampPriorTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.vae = small_vae(prior=vae_tf.VampPrior(2, num_components=4))

    def test_is_the_average_posterior_at_the_pseudo_inputs(self):
        p = self.vae.prior_distribution()
        z = np.random.default_rng(0).standard_normal((6, 2)).astype("float32")
        q = self.vae.encoder(self.vae.prior.pseudo_inputs())
        each = scipy.stats.norm.logpdf(z[:, None], q.mean(), q.stddev()).sum(-1)
        expected = scipy.special.logsumexp(each, -1) - np.log(4)
        self.assertAllClose(p.log_prob(z), expected, 1e-4, 1e-4)

    def test_of_correlated_posteriors_with_their_gradients(self):
        vae = small_vae(
            posterior="full_covariance",
            prior=vae_tf.VampPrior(2, num_components=4),
        )
        z = np.random.default_rng(0).standard_normal((3, 6, 2))
        z = tf.constant(z.astype("float32"))
        variables = vae.inference_variables + vae.prior.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            q = vae.encoder(vae.prior.pseudo_inputs())
            each = q.log_prob(z[..., tf.newaxis, :])  # solved one by one
            expected = tf.reduce_logsumexp(each, -1) - np.log(4)
            log_p = vae.prior_distribution().log_prob(z)
        self.assertAllClose(log_p, expected, 1e-5, 1e-5)
        self.assertAllClose(
            log_p[1, 2], vae.prior_distribution().log_prob(z[1, 2])
        )
        for found, slope in zip(
            tape.gradient(log_p, [z, *variables]),
            tape.gradient(expected, [z, *variables]),
            strict=True,
        ):
            self.assertGreater(np.abs(slope).max(), 0)
            self.assertAllClose(found, slope, 1e-3, 1e-4)

    def test_draws_are_its_own(self):
        q = self.vae.encoder(self.vae.prior.pseudo_inputs())
        draws = self.vae.prior_distribution().sample(20_000, seed=1).numpy()
        mean = np.mean(q.mean(), 0)
        second = np.mean(q.mean() ** 2 + q.variance(), 0)
        error = 5 * draws.std(0) / 20_000**0.5
        self.assertAllGreater(error - np.abs(draws.mean(0) - mean), 0)
        self.assertAllClose((draws**2).mean(0), second, 0.1)
        # Far enough from N(0, I) that drawing from that one would show.
        self.assertGreater(np.abs(second - 1).max(), 0.2)

    def test_owns_its_pseudo_inputs_and_borrows_the_encoder(self):
        self.assertLen(self.vae.prior.trainable_variables, 1)
        phi = self.vae.inference_variables
        with tf.GradientTape() as tape:
            log_p = self.vae.prior_distribution().log_prob(tf.ones((1, 2)))
        slopes = tape.gradient(log_p, phi + self.vae.prior.trainable_variables)
        for slope in slopes:
            self.assertGreater(np.abs(slope).max(), 0)

    def test_adapt_starts_from_images_of_the_data(self):
        images = random_bits(50)
        self.vae.adapt(images)
        found = np.round(self.vae.prior.pseudo_inputs())
        flat = {image.tobytes() for image in images}
        self.assertTrue(all(image.tobytes() in flat for image in found))
        self.assertAllInRange(self.vae.prior.pseudo_inputs(), 0.049, 0.951)
        first = images[:4].reshape(4, -1)
        self.assertNotAllClose(found.reshape(4, -1), first)
        self.vae.adapt(images[:2])  # Fewer than there are pseudo-inputs.
        found = np.array(self.vae.prior.pseudo_inputs())
        flat = {image.tobytes() for image in found}
        self.assertLen(flat, len(found))  # No two are equal for good.
