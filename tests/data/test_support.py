import warnings

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.config import SPLITS
from vae_tf.data.splits import Source
from vae_tf.data.support import suited


class SupportTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("bernoulli", 17, "dynamic", "none"),
        ("bernoulli", 2, "none", "none"),
        ("continuous_bernoulli", 17, "none", "uniform"),
        ("normal", 256, "none", "uniform"),
        ("discretized_logistic", 256, "none", "none"),
    )
    def test_what_is_unset(self, likelihood, levels, *expected):
        images = dict.fromkeys(SPLITS, np.zeros((10, 2, 2, 1), np.uint8))
        source = Source("x", "x", levels, images, dict.fromkeys(SPLITS))
        found = suited(source, likelihood, None, None)
        self.assertEqual(found, tuple(expected))

    def test_what_is_unset_follows_the_likelihood(self):
        for likelihood, binarization, dequantization in (
            ("bernoulli", "dynamic", "none"),
            ("continuous_bernoulli", "none", "uniform"),
            ("normal", "none", "uniform"),
        ):
            data = vae_tf.load_data("digits", likelihood=likelihood)
            self.assertEqual(data.binarization, binarization)
            self.assertEqual(data.dequantization, dequantization)

    def test_a_bernoulli_likelihood_refuses_grey_images(self):
        with self.assertRaisesRegex(
            vae_tf.UserError, "17 grey levels of digits.*continuous Bernoulli"
        ):
            vae_tf.load_data("digits", binarization="none")

    @parameterized.named_parameters(
        (
            "levels",
            {"likelihood": "discretized_logistic"},
            "17 grey levels of d",
        ),
        (
            "bits",
            {"dequantization": "uniform"},
            "--dequantization: expected no",
        ),
        (
            "masses",
            {"likelihood": "discretized_logistic", "dequantization": "uniform"},
            "256 levels of 8-bit images gives what lies between",
        ),
    )
    def test_a_mass_is_refused_off_its_support(self, settings, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            vae_tf.load_data("digits", **settings)

    def test_a_density_at_the_levels_is_warned_of(self):
        with self.assertWarnsRegex(UserWarning, "grow without bound"):
            vae_tf.load_data(
                "digits", likelihood="normal", dequantization="none"
            )

    def test_random_bits_of_colours_are_warned_of(self):
        colours = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3))
        source = Source(
            "colours",
            "colours",
            256,
            dict.fromkeys(SPLITS, np.uint8(colours)),
            dict.fromkeys(SPLITS),
        )
        with self.assertWarnsRegex(UserWarning, "colour channel of colour"):
            suited(source, "bernoulli", None, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            suited(source, "bernoulli", "dynamic", None)
            suited(source, "discretized_logistic", None, None)
