import math

import numpy as np
import tensorflow as tf

from vae_tf.evaluation.linear_probe import linear_accuracy


class LinearProbeTest(tf.test.TestCase):
    def test_two_normal_classes_are_told_apart_as_well_as_they_can_be(self):
        # Means 2 apart with unit variance: Bayes' rule is right in Phi(1), of
        # whatever scale and offset the codes are.
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, 4000)
        codes = generator.normal(size=(4000, 3))
        codes[:, 1] += 2 * labels
        best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
        found = linear_accuracy(codes, labels)
        error = math.sqrt(best * (1 - best) / 4000)
        self.assertLess(abs(found - best), 3.5 * error)
        scaled = linear_accuracy(codes * [1, 1e-3, 1e3] + 7, labels)
        self.assertAllClose(scaled, found, atol=1e-3)

    def test_no_image_is_named_by_a_probe_that_saw_it(self):
        # Of classes at random, more codes than images would name each.
        generator = np.random.default_rng(0)
        codes = generator.normal(size=(200, 300))
        labels = generator.integers(0, 4, 200)
        self.assertBetween(linear_accuracy(codes, labels), 0.1, 0.4)

    def test_a_class_inside_another_is_no_half_space(self):
        generator = np.random.default_rng(0)
        codes = generator.normal(size=(2000, 2))
        labels = np.linalg.norm(codes, axis=1) < math.sqrt(2 * math.log(2))
        self.assertBetween(linear_accuracy(codes, labels), 0.4, 0.6)

    def test_few_images_and_few_classes(self):
        codes = np.arange(12.0).reshape(6, 2)
        self.assertTrue(np.isnan(linear_accuracy(codes[:4], np.arange(4))))
        self.assertTrue(np.isnan(linear_accuracy(codes, np.zeros(6))))
        # The only image of its class cannot be named.
        alone = linear_accuracy(codes, np.array([0, 0, 0, 0, 0, 1]))
        self.assertLessEqual(alone, 5 / 6)
