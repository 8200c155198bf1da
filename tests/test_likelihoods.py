import numpy as np
import tensorflow as tf

import vae_tf


class BernoulliTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.head = vae_tf.Bernoulli((2, 3, 1))

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
        logits = tf.random.stateless_normal((2, 3, 1), seed=[0, 2])
        images = np.indices([2] * 6).reshape(6, -1).T.reshape(-1, 2, 3, 1)
        log_p = self.head.distribution(logits).log_prob(images * 1.0)
        self.assertAllClose(tf.reduce_sum(tf.exp(log_p)), 1.0, 1e-5)

    def test_confident_logits_give_finite_values_and_gradients(self):
        # The worst reconstruction: certain of black where the image is white.
        for logit in (-1e4, 1e4):
            for pixel in (0.0, 1.0):
                logits = tf.fill((1, 2, 3, 1), logit)
                with tf.GradientTape() as tape:
                    tape.watch(logits)
                    likelihood = self.head.distribution(logits)
                    log_p = likelihood.log_prob(tf.fill((1, 2, 3, 1), pixel))
                wrong = (logit > 0) != (pixel > 0)
                self.assertAllClose(log_p, [-6e4 if wrong else 0.0])
                gradient = tape.gradient(log_p, logits)
                sign = (pixel > 0) * 2.0 - 1.0
                self.assertAllClose(
                    gradient, tf.fill((1, 2, 3, 1), sign * wrong)
                )

    def test_adapt_starts_at_the_log_odds_of_the_mean_image(self):
        self.head(tf.zeros((1, 4)))
        mean = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 1.0]).reshape(2, 3, 1)
        self.head.adapt(mean, 1_000_000)
        image = self.head.distribution(self.head(tf.zeros((1, 4)))).mean()
        self.assertAllClose(image[0], mean, atol=1e-6)
        self.assertAllInRange(self.head.linear.bias, -20.0, 20.0)

    def test_draws_are_bits(self):
        logits = tf.fill((2, 3, 1), 0.3)
        draws = self.head.distribution(logits).sample(20_000, seed=1)
        self.assertAllInSet(draws, [0.0, 1.0])
        p = 1 / (1 + np.exp(-0.3))
        self.assertAllClose(np.mean(draws, 0), tf.fill((2, 3, 1), p), atol=0.02)
