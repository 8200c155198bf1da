import warnings
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.data import levels as levels_module
from vae_tf.data.levels import as_levels
from vae_tf.settings import UserError


def images(values, dtype):
    """An array [N, 1, 1, 1] of those values."""
    return np.array(values).astype(dtype).reshape(-1, 1, 1, 1)


ALL = np.arange(256)


class LevelsTest(tf.test.TestCase, parameterized.TestCase):
    def convert(self, values, dtype, levels=None):
        """Levels as plain numbers, and how many there are."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, levels = as_levels({"train": images(values, dtype)}, levels)
        self.assertEqual(found["train"].dtype, np.uint8)
        self.assertIs(type(levels), int)
        return found["train"].ravel().tolist(), levels

    @parameterized.parameters(np.uint8, np.int32, np.int64, np.uint16, ">i4")
    def test_integers_are_levels(self, dtype):
        self.assertEqual(self.convert(ALL, dtype), (ALL.tolist(), 256))
        self.assertEqual(self.convert([0, 1], dtype), ([0, 1], 2))
        self.assertEqual(self.convert([0, 1], dtype, 256), ([0, 1], 256))
        self.assertEqual(self.convert([0, 16], dtype, 17), ([0, 16], 17))

    def test_booleans_are_bits(self):
        self.assertEqual(self.convert([True, False], bool), ([1, 0], 2))
        self.assertEqual(self.convert([True], bool, 2), ([1], 2))
        with self.assertRaisesRegex(
            UserError, "levels: .* from 2 to 2 for images of bool, received 3"
        ):
            self.convert([True], bool, 3)

    @parameterized.parameters(np.float16, np.float32, np.float64)
    def test_floats_from_0_to_1_are_fractions(self, dtype):
        self.assertEqual(self.convert(ALL / 255, dtype), (ALL.tolist(), 256))
        self.assertEqual(self.convert([0, 1], dtype), ([0, 1], 2))
        self.assertEqual(self.convert([0, 1], dtype, 256), ([0, 255], 256))
        self.assertEqual(
            self.convert(np.arange(17) / 16, dtype, 17), (list(range(17)), 17)
        )

    def test_as_others_divide(self):
        for divided in (
            np.float32(ALL) / 255,
            np.float32(ALL) * np.float32(1 / 255),
            tf.image.convert_image_dtype(np.uint8(ALL), tf.float32).numpy(),
        ):
            self.assertEqual(
                self.convert(divided, np.float32), (ALL.tolist(), 256)
            )

    def test_floats_above_1_are_whole_levels(self):
        self.assertEqual(self.convert(ALL, np.float32), (ALL.tolist(), 256))
        self.assertEqual(self.convert([0, 1, 16], float, 17), ([0, 1, 16], 17))

    def test_splits_are_judged_together(self):
        found, levels = as_levels(
            {
                "train": images([0, 1], np.float32),
                "test": images([0, 100 / 255], np.float32),
            },
            None,
        )
        self.assertEqual(levels, 256)
        self.assertEqual(found["train"].ravel().tolist(), [0, 255])
        self.assertEqual(found["test"].ravel().tolist(), [0, 100])

    def test_piece_by_piece(self):
        with mock.patch.object(levels_module, "PIECE", 7):
            self.assertEqual(
                self.convert(ALL / 255, float), (ALL.tolist(), 256)
            )
            with self.assertRaisesRegex(UserError, "with 0.7012,"):
                self.convert([*ALL / 255, 0.7012], float)

    @parameterized.parameters(
        (
            [0, 0.5, 0.3, 0.2],
            float,
            None,
            "on 256 equally spaced levels from 0 to 1, received 0.0 to 0.5 "
            r"with 0.5, which lies between .*np.round\(255 \* images\)",
        ),
        ([0, 1, 0.3], float, 2, r"on 2 .* with 0.3, .*np.round\(1 \* images"),
        ([0, 255, 3.5], float, None, r"with 3.5, .* np.round\(images\)"),
        ([-1.0, 1.0], float, None, "from 0 to 1, received -1.0 to 1.0"),
        ([-3, 200], np.int32, None, "from 0 to 255, received -3 to 200"),
        ([0, 4095], np.uint16, None, "from 0 to 255, received 0 to 4095"),
        ([0, 17], np.uint8, 17, "from 0 to 16, received 0 to 17"),
        ([0, np.nan], float, None, "0 to 1 or from 0 to 255, received nan"),
        ([0, np.inf], float, None, "received 0.0 to inf"),
    )
    def test_refuses(self, values, dtype, levels, message):
        with self.assertRaisesRegex(
            UserError, f"images: expected values .*{message}"
        ):
            self.convert(values, dtype, levels)

    @parameterized.parameters(1, 257, 2.0, True, "256")
    def test_how_many_there_may_be(self, levels):
        with self.assertRaisesRegex(
            UserError, "levels: expected an integer from 2 to 256 for images of"
        ):
            self.convert([0, 1], np.uint8, levels)

    def test_a_whole_dataset_of_dark_greys_is_warned_of(self):
        for dtype in (float, np.uint8):
            with self.assertWarnsRegex(
                UserWarning, "levels: unset, so .* 16.* levels=17 makes it"
            ):
                _, levels = as_levels({"train": images([0, 16], dtype)}, None)
            self.assertEqual(levels, 256)
