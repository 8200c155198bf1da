import keras
import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized
from small import gradient

import vae_tf
from vae_tf import likelihoods

SHAPE = (2, 3, 1)
# Where a formula for logits loses its digits, or its exponential overflows.
DIFFICULT_LOGITS = [
    0.0,
    1e-8,
    -1e-4,
    1e-2,
    0.3,
    -0.999,
    1.001,
    4.0,
    -20.0,
    90.0,
    -1e4,
    1e4,
]


class LikelihoodTest(parameterized.TestCase, tf.test.TestCase):
    """What every family does."""

    @parameterized.parameters(*likelihoods.LIKELIHOODS)
    def test_is_a_distribution_over_images(self, name):
        head = likelihoods.LIKELIHOODS[name](SHAPE)
        for features in (tf.ones((5, 4)), tf.ones((5, 2, 3, 4))):
            head = likelihoods.LIKELIHOODS[name](SHAPE)
            p = head.distribution(head(features))
            self.assertEqual((p.batch_shape, p.event_shape), ([5], SHAPE))
            self.assertEqual(p.log_prob(tf.ones((5, *SHAPE))).shape, (5,))
            self.assertAllInRange(p.mean(), 0.0, 1.0)
            self.assertEqual(p.mean().dtype, tf.float32)
            self.assertAllEqual(p.sample(seed=[0, 1]), p.sample(seed=[0, 1]))

    @parameterized.parameters(*likelihoods.LIKELIHOODS)
    def test_adapt_starts_at_the_mean_image(self, name):
        head = likelihoods.LIKELIHOODS[name](SHAPE)
        head(tf.zeros((1, 4)))
        mean = np.array([0.02, 0.25, 0.5, 0.75, 0.9, 0.98]).reshape(SHAPE)
        head.adapt(mean, 1_000_000)
        image = head.distribution(head(tf.zeros((1, 4)))).mean()
        # The logistic's edge bins pull its mean inwards.
        tolerance = 0.07 if name == "discretized_logistic" else 1e-5
        self.assertAllClose(image[0], mean, atol=tolerance)
        head.adapt(np.zeros(SHAPE), 10)  # a pixel that never varies
        self.assertAllInRange(head.bias, -1e5, 1e5)

    @parameterized.parameters(*likelihoods.LIKELIHOODS)
    def test_spatial_features_are_mapped_alike_at_every_pixel(self, name):
        head = likelihoods.LIKELIHOODS[name](SHAPE)
        features = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
        before = head(tf.constant(features, tf.float32)).numpy()
        swapped = head(tf.constant(features[:, ::-1], tf.float32)).numpy()
        self.assertAllClose(before[:, ::-1], swapped, 1e-6, 1e-6)

    def test_refuses_features_of_another_size(self):
        with self.assertRaisesRegex(ValueError, r"shape \(B, 2, 3, F\)"):
            vae_tf.Bernoulli(SHAPE)(tf.ones((1, 3, 3, 4)))

    @parameterized.parameters(*likelihoods.LIKELIHOODS)
    def test_draws_have_the_mean(self, name):
        head = likelihoods.LIKELIHOODS[name](SHAPE)
        p = head.distribution(
            head(tf.random.stateless_normal((1, 4), seed=[0, 1]))
        )
        draws = p.sample(20_000, seed=1).numpy()
        error = 5 * draws.std(0) / np.sqrt(20_000)
        self.assertAllGreater(
            error + 1e-4 - np.abs(draws.mean(0) - p.mean()), 0
        )


class BernoulliTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.head = vae_tf.Bernoulli(SHAPE)

    def test_log_prob_is_the_cross_entropy_in_nats(self):
        logits = tf.random.stateless_normal((4, 2, 3, 1), seed=[0, 1])
        x = np.random.default_rng(0).integers(0, 2, logits.shape) * 1.0
        p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
        expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2, 3))
        likelihood = self.head.distribution(logits)
        self.assertAllClose(likelihood.log_prob(x), expected, 1e-5, 1e-5)
        bits = (x * np.log2(p) + (1 - x) * np.log2(1 - p)).sum((1, 2, 3))
        self.assertAllClose(
            likelihood.log_prob(x) / np.log(2), bits, 1e-5, 1e-5
        )
        self.assertAllClose(likelihood.mean(), p, 1e-5, 1e-5)

    def test_probabilities_sum_to_one(self):
        logits = tf.random.stateless_normal(SHAPE, seed=[0, 2])
        images = np.indices([2] * 6).reshape(6, -1).T.reshape(-1, *SHAPE)
        log_p = self.head.distribution(logits).log_prob(images * 1.0)
        self.assertAllClose(tf.reduce_sum(tf.exp(log_p)), 1.0, 1e-5)

    def test_confident_logits_give_finite_values_and_gradients(self):
        # The worst reconstruction: certain of black where the image is white.
        for logit in (-1e4, 1e4):
            for pixel in (0.0, 1.0):
                logits = tf.fill((1, *SHAPE), logit)
                with tf.GradientTape() as tape:
                    tape.watch(logits)
                    likelihood = self.head.distribution(logits)
                    log_p = likelihood.log_prob(tf.fill((1, *SHAPE), pixel))
                wrong = (logit > 0) != (pixel > 0)
                self.assertAllClose(log_p, [-6e4 if wrong else 0.0])
                slope = tape.gradient(log_p, logits)
                sign = (pixel > 0) * 2.0 - 1.0
                self.assertAllClose(slope, tf.fill((1, *SHAPE), sign * wrong))

    def test_values_and_slopes_at_every_logit_compiled_or_not(self):
        # log P(x = 0) = -log(1 + exp(logit)), whose slope is -P(x = 1).
        head = vae_tf.Bernoulli((1, 1, 1))
        logits = np.append(np.linspace(-40, 40, 8001), [0, 15])
        logits = tf.constant(logits.reshape(-1, 1, 1, 1), tf.float32)

        def value_and_slope(logits):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                black = tf.zeros_like(logits)
                log_p = head.distribution(logits).log_prob(black)
            return log_p, tape.gradient(log_p, logits)

        exact = np.ravel(logits).astype(np.float64)
        for jit_compile in (False, True):
            function = tf.function(value_and_slope, jit_compile=jit_compile)
            value, slope = map(np.ravel, function(logits))
            self.assertAllClose(value, -np.logaddexp(0, exact), 2e-7, 3e-7)
            self.assertAllClose(slope, -1 / (1 + np.exp(-exact)), 1e-6, 4e-7)

    def test_draws_are_bits(self):
        draws = self.head.distribution(tf.fill(SHAPE, 0.3)).sample(99, seed=1)
        self.assertAllInSet(draws, [0.0, 1.0])


class ContinuousBernoulliTest(parameterized.TestCase, tf.test.TestCase):
    def pixel(self, logit):
        head = vae_tf.ContinuousBernoulli((1, 1, 1))
        return head.distribution(tf.fill((1, 1, 1), tf.cast(logit, tf.float32)))

    def exact(self, logit):
        """log Z and the mean, by quadrature of exp(x logits) in float64."""
        top = max(logit, 0.0)  # factored out, or it overflows
        # All of the mass lies within 50 / |logits| of an end.
        end = min(1.0, 50 / abs(logit)) if logit else 1.0
        low, high = (1 - end, 1.0) if logit > 0 else (0.0, end)
        mass, moment = (
            scipy.integrate.quad(
                lambda x, weight=weight: weight(x) * np.exp(x * logit - top),
                low,
                high,
                epsabs=1e-14,
            )[0]
            for weight in (lambda x: 1.0, lambda x: x)
        )
        return np.log(mass) + top, moment / mass

    @parameterized.parameters(*DIFFICULT_LOGITS)
    def test_density_and_mean_agree_with_quadrature(self, logit):
        log_z, mean = self.exact(logit)
        p = self.pixel(logit)
        for x in (0.0, 0.013, 0.5, 0.9, 1.0):
            log_p = p.log_prob(tf.fill((1, 1, 1), x))
            self.assertAllClose(log_p, x * logit - log_z, 2e-6, 2e-6)
            # d log p / d logits = x - mean
            slope = gradient(
                lambda v, x=x: self.pixel(v).log_prob(tf.fill((1, 1, 1), x)),
                logit,
            )
            self.assertAllClose(slope, x - mean, 1e-5, 1e-5)
        self.assertAllClose(tf.reshape(p.mean(), ()), mean, 1e-6, 1e-6)
        self.assertAllInRange(p.sample(99, seed=1), 0.0, 1.0)

    def test_a_margin_bounds_lambda_and_the_density(self):
        margin = 1e-3
        free = vae_tf.ContinuousBernoulli((1, 1, 1))
        head = vae_tf.ContinuousBernoulli((1, 1, 1), margin)
        black = tf.zeros((1, 1, 1))
        edge = float(np.log((1 - margin) / margin))
        for logits, within in ((-50.0, -edge), (-2.0, -2.0), (50.0, edge)):
            found, expected = (
                one.distribution(tf.fill((1, 1, 1), value)).log_prob(black)
                for one, value in ((head, logits), (free, within))
            )
            self.assertAllClose(found, expected, 1e-6, 1e-6)
        # What starts there can still move, on either side.
        for margin in (1e-3, 0.4):
            head = vae_tf.ContinuousBernoulli((1, 1, 1), margin)
            head(tf.zeros((1, 4)))
            for mean, sign in ((0.0, -1), (1.0, 1)):
                head.adapt(np.full((1, 1, 1), mean), 10**6)
                image = tf.fill((1, 1, 1), mean)
                slope = gradient(
                    lambda bias, head=head, image=image: head.distribution(
                        bias
                    ).log_prob(image),
                    np.array(head.bias),
                )
                self.assertGreater(sign * slope.item(), 0.1)
        for wrong in (-1e-4, 0.5):
            with self.assertRaisesRegex(ValueError, "lambda_margin: .*< 0.5"):
                vae_tf.ContinuousBernoulli((1, 1, 1), wrong)

    def test_the_mean_is_not_lambda(self):
        mean = tf.reshape(self.pixel(4.0).mean(), ())
        self.assertGreater(scipy.special.expit(4.0) - mean, 0.2)


class NormalTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("fixed", "shared", "per_pixel")
    def test_log_prob(self, normal_scale):
        head = vae_tf.Normal(SHAPE, normal_scale, initial_scale=0.2)
        features = tf.random.stateless_normal((4, 5), seed=[0, 1])
        p = head.distribution(head(features))
        scale = p.stddev().numpy()
        x = np.random.default_rng(0).random((4, *SHAPE))
        expected = scipy.stats.norm.logpdf(x, p.mean(), scale).sum((1, 2, 3))
        self.assertAllClose(p.log_prob(x), expected, 1e-4, 1e-4)
        at_start = head.distribution(head(tf.zeros((1, 5)))).stddev()
        self.assertAllClose(at_start, np.full((1, *SHAPE), 0.2), 1e-5)
        varies = np.ptp(scale, axis=0).max() > 1e-3
        self.assertEqual(varies, normal_scale == "per_pixel")
        trainable = {variable.name for variable in head.trainable_variables}
        self.assertEqual("raw_scale" in trainable, normal_scale == "shared")

    def test_scale_is_bounded_below(self):
        head = vae_tf.Normal((1, 1, 1), "per_pixel")

        def log_prob(raw):
            parameters = tf.reshape(tf.stack([0.0, raw]), (1, 1, 1, 2))
            return head.distribution(parameters).log_prob(
                tf.fill((1, 1, 1), 0.5)
            )

        bound = scipy.stats.norm.logpdf(0, 0, likelihoods.MIN_NORMAL_SCALE)
        self.assertAllClose(log_prob(tf.constant(-1e4)), bound, 1e-5)
        self.assertAllClose(gradient(log_prob, -1e4), 0.0)

    def test_refuses(self):
        with self.assertRaisesRegex(ValueError, "one of fixed, shared"):
            vae_tf.Normal(SHAPE, "free")
        with self.assertRaisesRegex(ValueError, "initial_scale: expected a"):
            vae_tf.Normal(SHAPE, initial_scale=0.0)


class RoundTripTest(tf.test.TestCase):
    def test_round_trip(self):
        for head in (
            vae_tf.DiscretizedLogistic(SHAPE),
            vae_tf.Normal(SHAPE, "per_pixel", 0.3),
            vae_tf.ContinuousBernoulli(SHAPE, 1e-3),
        ):
            again = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(head)
            )
            self.assertEqual(again.get_config(), head.get_config())
