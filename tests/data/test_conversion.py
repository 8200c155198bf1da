import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.data.conversion import Conversion

LEVELS = tf.constant([0, 1, 127, 128, 255], tf.uint8)


def half(purpose):
    return tf.fill(LEVELS.shape, {"bit": 0.5, "level": 0.25}[purpose])


class ConversionTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("none", "none", [0, 1 / 255, 127 / 255, 128 / 255, 1]),
        ("threshold", "none", [0, 0, 0, 1, 1]),
        ("dynamic", "none", [0, 0, 0, 1, 1]),
        (
            "none",
            "uniform",
            np.array([0.25, 1.25, 127.25, 128.25, 255.25]) / 256,
        ),
        ("threshold", "uniform", [0.125, 0.125, 0.125, 0.625, 0.625]),
    )
    def test_pixels(self, binarization, dequantization, expected):
        conversion = Conversion(256, binarization, dequantization)
        pixels = conversion.pixels(LEVELS, half)
        self.assertEqual(pixels.dtype, tf.float32)
        self.assertAllClose(pixels, expected, 1e-6)

    def test_bits_that_were_drawn_before_stay(self):
        bits = tf.constant([0, 1], tf.uint8)
        conversion = Conversion(17, "static", "none")
        self.assertAllEqual(conversion.pixels(bits, half), [0.0, 1.0])

    @parameterized.parameters(
        ("binary", {}, (256, "dynamic", "none")),
        ("interval", {}, (256, "none", "uniform")),
        ("levels", {}, (256, "none", "none")),
        ("a user's own", {}, (256, "none", "none")),
        (
            "interval",
            {"levels": 17, "binarization": "none", "dequantization": "none"},
            (17, "none", "none"),
        ),
        ("binary", {"binarization": "static"}, (256, "dynamic", "none")),
        ("binary", {"levels": 2, "binarization": "none"}, (2, "none", "none")),
    )
    def test_of_a_new_image(self, support, trained_on, expected):
        self.assertEqual(
            Conversion.of(support, trained_on), Conversion(*expected)
        )
