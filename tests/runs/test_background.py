import threading

import tensorflow as tf

from vae_tf.runs.background import Background


class BackgroundTest(tf.test.TestCase):
    def test_does_one_thing_at_a_time_in_order(self):
        background, begun, done = Background(), threading.Event(), []
        gate = threading.Event()

        def first():
            begun.set()
            gate.wait(10)
            done.append(1)

        background.start(first)
        self.assertTrue(begun.wait(10))
        self.assertEmpty(done)  # Whoever started it goes on meanwhile.
        gate.set()
        background.start(done.append, 2)
        background.wait()
        self.assertEqual(done, [1, 2])

    def test_what_went_wrong_is_raised_once_and_nothing_follows_it(self):
        background, done = Background(), []

        def fail():
            raise KeyboardInterrupt("full")

        background.start(fail)
        with self.assertRaisesRegex(KeyboardInterrupt, "full"):
            background.start(done.append, 1)
        background.wait()
        self.assertEmpty(done)


if __name__ == "__main__":
    tf.test.main()
