from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import written

from vae_tf.data import splits
from vae_tf.settings import UserError


class SplitsTest(tf.test.TestCase, parameterized.TestCase):
    def test_missing_splits_are_the_same_cut_everywhere(self):
        rows = splits.split_rows({"train": 30})
        self.assertEqual({pool for pool, _ in rows.values()}, {"train"})
        # Written down once: another machine, NumPy or year must agree.
        self.assertAllEqual(rows["test"][1], TEST_ROWS_OF_30)
        self.assertAllEqual(rows["validation"][1], VALIDATION_ROWS_OF_30)
        every = np.concatenate([chosen for _, chosen in rows.values()])
        self.assertAllEqual(np.sort(every), np.arange(30))

    def test_splits_that_exist_stay(self):
        rows = splits.split_rows({"train": 20, "test": 9})
        self.assertEqual(rows["test"], ("test", slice(None)))
        self.assertLen(rows["validation"][1], 2)
        self.assertLen(rows["train"][1], 18)

    def test_too_few_images_to_cut(self):
        with self.assertRaisesRegex(
            UserError, "at least 10 images, received 9"
        ):
            splits.split_rows({"train": 9})

    @parameterized.parameters(10, 11, 99, 1000)
    def test_splits_are_disjoint_and_complete(self, count):
        rows = splits.split_rows({"train": count})
        every = np.concatenate([chosen for _, chosen in rows.values()])
        self.assertAllEqual(np.sort(every), np.arange(count))
        self.assertLen(rows["test"][1], count // 10)
        self.assertLen(rows["validation"][1], count // 10)

    def test_rows_in_memory_and_on_disk(self):
        array = np.arange(24, dtype=np.uint8).reshape(8, 3, 1, 1)
        disk = written(array)
        rows = np.array([1, 4, 7])
        kept = splits.take_rows(disk, rows)
        self.assertLen(kept, 3)
        self.assertAllEqual(kept[:], array[rows])
        self.assertAllEqual(splits.take_rows(array, rows), array[rows])
        self.assertIs(splits.take_rows(disk, slice(None)), disk)
        self.assertIsNone(splits.take_rows(None, rows))

    def test_what_fits_memory(self):
        with mock.patch.object(splits, "MEMORY_LIMIT", 5 * 4 * 3 * 2):
            self.assertTrue(splits.fits_memory(5, (4, 3, 2)))
            self.assertFalse(splits.fits_memory(6, (4, 3, 2)))


TEST_ROWS_OF_30 = [3, 13, 19]
VALIDATION_ROWS_OF_30 = [11, 14, 26]
