import keras
import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.metrics import Negative, NonFinite, Refused, SettingBack


class NonFiniteTest(tf.test.TestCase):
    def test_a_row_goes_on_in_the_next_epoch(self):
        guard, terms = NonFinite(), (tf.zeros(2), tf.fill(2, np.nan))
        for loss in (1.0, np.nan, np.nan):
            guard.update_state(tf.constant(loss), terms)
        guard.reset_state()
        self.assertAllEqual(guard.counts, [0, 0, 2, 0, 0, 0, 0])
        guard.update_state(tf.constant(np.nan), terms)
        # One step, left out, the third in a row, this epoch's first; its
        # log p(x|z) was a number.
        self.assertAllEqual(guard.counts, [1, 1, 3, 3, 0, 1, 0])

    def test_gradients_of_a_bound_that_is_no_number_are_left_out(self):
        slopes = [tf.ones(3), None]
        kept, none = NonFinite.passed(tf.constant(1.0), slopes)
        self.assertAllEqual(kept, np.ones(3))
        left, none = NonFinite.passed(tf.constant(np.inf), slopes)
        self.assertAllEqual(left, np.zeros(3))
        self.assertIsNone(none)


class RefusedTest(tf.test.TestCase):
    def test_counts_pixels_and_images_and_says_their_range(self):
        refused = Refused("binary")
        images = np.zeros((4, 2, 2, 1), np.float32)
        images[1, 0, 0] = 0.25
        images[3] = [[[-1.0], [0.5]], [[1.0], [np.nan]]]
        for part in (images[:2], images[2:]):
            refused.update_state(tf.constant(part))
        with self.assertRaisesRegex(
            vae_tf.UserError,
            "0 or 1, received 4 others in 2 of 4 images, with values from -1 "
            "to 0.5",
        ):
            refused.check()
        refused.check()  # Said once.


class SettingBackTest(tf.test.TestCase):
    def test_sets_back_what_comes_later_and_what_is_no_variable_too(self):
        class Late(keras.metrics.Metric):
            """Has its variable from the first update on, and a number."""

            updates, total = 0, None

            def update_state(self, value):
                if self.total is None:
                    self.total = self.add_weight((), "zeros")
                self.total.assign_add(value)
                self.updates += 1

            def reset_state(self):
                super().reset_state()
                self.updates = 0

            def result(self):
                return self.total

        mean, late, set_back = keras.metrics.Mean(), Late(), SettingBack()
        metrics = [mean, Negative(mean), late, NonFinite(), Refused("binary")]
        set_back(metrics)
        for _ in range(2):
            mean.update_state(3.0)
            late.update_state(2.0)
            self.assertEqual(
                [float(m.result()) for m in metrics[:3]], [3, -3, 2]
            )
            set_back(metrics)
            self.assertEqual(float(mean.result()), 0.0)
            self.assertEqual((float(late.result()), late.updates), (0.0, 0))
        # One that is there from now on.
        other = keras.metrics.Mean()
        other.update_state(4.0)
        set_back([*metrics, other])
        self.assertEqual(float(other.result()), 0.0)


class NegativeTest(tf.test.TestCase):
    def test_is_minus_the_other_one(self):
        bound = keras.metrics.Mean()
        loss = Negative(bound)
        bound.update_state([1.0, 4.0])
        self.assertAllClose(loss.result(), -2.5)
        loss.reset_state()  # Keras resets the bound itself.
        self.assertAllClose(loss.result(), -2.5)


if __name__ == "__main__":
    tf.test.main()
