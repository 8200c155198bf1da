import numpy as np
import scipy.special
import tensorflow as tf
from absl.testing import parameterized
from small import gradient
from tensorflow_probability import distributions as tfd

from vae_tf import pixels


class ContinuousBernoulliTest(tf.test.TestCase):
    def test_entropy_is_the_mean_of_minus_log_density(self):
        for logits in (-30.0, -0.3, 0.0, 2.0):
            pixel = pixels.StableContinuousBernoulli(logits=tf.constant(logits))
            x = np.linspace(0, 1, 20_001)
            log_p = pixel.log_prob(tf.constant(x, tf.float32)).numpy()
            expected = np.trapezoid(-np.exp(log_p) * log_p, x)
            self.assertAllClose(pixel.entropy(), expected, 1e-3, 1e-3)

    def test_agrees_with_tfp_where_that_is_accurate(self):
        logits = tf.random.stateless_normal((50,), seed=[0, 1]) * 4
        x = tf.random.stateless_uniform((50,), seed=[0, 2])
        ours = pixels.StableContinuousBernoulli(logits=logits)
        theirs = tfd.ContinuousBernoulli(logits=logits)
        self.assertAllClose(ours.log_prob(x), theirs.log_prob(x), 1e-4, 1e-4)
        self.assertAllClose(ours.mean(), theirs.mean(), 1e-4, 1e-4)


class QuantizedLogisticTest(parameterized.TestCase, tf.test.TestCase):
    levels = (np.arange(256) / 255).astype(np.float32)

    def masses(self, loc, scale):
        """P(k/255) of every level, in float64 from the distribution function,
        by the tail in which it has its digits."""
        ends = (np.arange(1, 256) - 0.5) / 255
        seen = (ends - np.float64(np.float32(loc))) / np.float64(
            np.float32(scale)
        )
        below = np.concatenate([[0.0], scipy.special.expit(seen), [1.0]])
        above = np.concatenate([[1.0], scipy.special.expit(-seen), [0.0]])
        return np.where(below[1:] < 0.5, np.diff(below), above[:-1] - above[1:])

    @parameterized.parameters(
        (0.5, 0.1), (0.0, 0.02), (1.0, 0.001), (-0.3, 0.05), (0.37, 2.0)
    )
    def test_masses(self, loc, scale):
        p = pixels.QuantizedLogistic(tf.constant(loc), tf.constant(scale))
        log_p = p.log_prob(self.levels).numpy().astype(np.float64)
        masses = self.masses(loc, scale)
        self.assertAllClose(np.exp(log_p).sum(), 1.0, 1e-4)
        seen = masses > 1e-280
        self.assertAllClose(log_p[seen], np.log(masses[seen]), 1e-4, 2e-3)
        mean = (masses * self.levels).sum()
        self.assertAllClose(p.mean(), mean, 1e-5, 1e-5)

    def test_the_edge_bins_reach_to_infinity(self):
        p = pixels.QuantizedLogistic(tf.constant(-5.0), tf.constant(0.01))
        self.assertAllClose(p.log_prob(0.0), 0.0)
        p = pixels.QuantizedLogistic(tf.constant(7.0), tf.constant(0.01))
        self.assertAllClose(p.log_prob(1.0), 0.0)

    def test_far_from_the_data_values_and_gradients_are_finite(self):
        def log_prob(parameters):
            loc, scale = tf.unstack(parameters)
            return pixels.QuantizedLogistic(loc, scale).log_prob(
                tf.constant([0.0, 0.2, 1.0])
            )

        for loc in (-100.0, 0.2, 100.0):
            for scale in (1e-3, 1e3):
                value = log_prob(tf.constant([loc, scale]))
                self.assertAllInRange(value, -1e7, 0.0)
                slope = gradient(log_prob, [loc, scale])
                self.assertAllInRange(slope, -1e9, 1e9)

    def test_gradient_agrees_with_finite_differences(self):
        for k in (0, 90, 255):
            x = self.levels[k]

            def log_prob(parameters, x=x):
                loc, scale = tf.unstack(parameters)
                return pixels.QuantizedLogistic(loc, scale).log_prob(x)

            found = gradient(log_prob, [0.3, 0.07])
            step = 1e-5
            expected = [
                np.log(self.masses_64(0.3 + a, 0.07 + b)[k])
                - np.log(self.masses_64(0.3 - a, 0.07 - b)[k])
                for a, b in ((step, 0), (0, step))
            ]
            self.assertAllClose(found, np.array(expected) / (2 * step), 1e-3)

    def masses_64(self, loc, scale):
        ends = (np.arange(1, 256) - 0.5) / 255
        below = scipy.special.expit((ends - loc) / scale)
        return np.diff(np.concatenate([[0.0], below, [1.0]]))

    def test_draws_are_levels(self):
        p = pixels.QuantizedLogistic(tf.constant(0.02), tf.constant(0.05))
        draws = p.sample(20_000, seed=1).numpy()
        counts = np.bincount(np.round(draws * 255).astype(int), minlength=256)
        self.assertAllClose(draws, np.round(draws * 255) / 255)
        expected = self.masses(0.02, 0.05)
        error = 5 * np.sqrt(expected / 20_000) + 1e-3
        self.assertAllGreater(error - np.abs(counts / 20_000 - expected), 0)


if __name__ == "__main__":
    tf.test.main()
