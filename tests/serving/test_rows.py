import numpy as np
import tensorflow as tf

from vae_tf.serving import rows


class RowsTest(tf.test.TestCase):
    def test_at_least_one_row_of_the_shape(self):
        self.assertAllEqual(rows.require(tf.ones((1, 2)), 2), [[1, 1]])
        for wrong in (tf.ones((0, 2)), tf.ones((1, 3)), tf.ones((2,))):
            with self.assertRaises((ValueError, tf.errors.OpError)):
                rows.require(wrong, 2)

    def test_seeds_of_other_rows_are_refused(self):
        seed = tf.constant([1, 2], tf.int64)
        with self.assertRaisesRegex(tf.errors.OpError, "z, seed: expected as"):
            rows.keys_of(seed, "z", tf.ones((3, 2)))
        keys = rows.keys_of(seed, "z", tf.ones((2, 2)))
        self.assertAllEqual(keys, [[1, 0], [2, 0]])

    def test_every_bit_of_a_seed_counts(self):
        seeds = tf.constant([0, 1, 2**32, -1, 2**62], tf.int64)
        drawn = rows.normal(rows.keys(seeds), rows.POSTERIOR, (3,)).numpy()
        self.assertLen(np.unique(drawn), 15)
        other = rows.normal(rows.keys(seeds), 0, (3,)).numpy()
        self.assertEmpty(np.intersect1d(drawn, other))
        bits = rows.uniform(rows.keys(seeds), rows.BIT, (3,)).numpy()
        self.assertLen(np.unique(bits), 15)
        self.assertAllInRange(bits, 0.0, 1.0)
        alone = rows.normal(rows.keys(seeds[3:4]), rows.POSTERIOR, (3,))
        self.assertAllEqual(alone[0], drawn[3])

    def test_a_row_counts_as_a_whole(self):
        valid = tf.constant([[True, True], [True, False]])
        output = tf.reshape(tf.range(8.0), (2, 2, 2))
        expected = np.array([[[0, 1], [2, 3]], [[np.nan] * 2] * 2])
        self.assertAllEqual(rows.where(valid, output), expected)
        self.assertAllEqual(
            rows.where(valid, output, 0.0), np.nan_to_num(expected)
        )

    def test_finite_rows(self):
        outputs = {
            "one": tf.constant([1.0, np.nan, 3.0, 4.0]),
            "two": tf.constant([[1.0, 2.0]] * 3 + [[np.inf, 0.0]]),
        }
        found = rows.finite(outputs)
        self.assertAllEqual(found["valid"], [True, False, True, False])
        self.assertAllEqual(found["one"], [1.0, 0.0, 3.0, 0.0])
        self.assertAllEqual(found["two"], [[1, 2], [0, 0], [1, 2], [0, 0]])

    def test_in_range(self):
        pixels = tf.constant([0.0, 1.0, 0.5, -1e-6, 1.00001, np.nan, np.inf])
        self.assertAllEqual(
            rows.in_range(pixels), [True, True, True, *[False] * 4]
        )
