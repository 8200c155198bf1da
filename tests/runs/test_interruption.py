import os
import signal
import subprocess
import sys
import threading
import time

import tensorflow as tf
from absl.testing import parameterized

from vae_tf.runs.interruption import Interrupted, watched

# Deaf to Python's own handlers, as in a compiled step.
DEAF = """
import ctypes, signal
from vae_tf.runs.interruption import watched
with watched():
    print("begun", flush=True)
    # A call that gives the interpreter away and does not return: a mask lets
    # the signals to the other thread alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    ctypes.CDLL(None).sleep(60)
"""


class InterruptionTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
    def test_the_first_signal_asks_and_nothing_else(self, number):
        # Not ignored, as what starts in the background inherits it.
        before = signal.default_int_handler
        first = signal.signal(number, before)
        self.addCleanup(signal.signal, number, first)
        with watched() as asked:
            self.assertIsNone(asked.signal)
            os.kill(os.getpid(), number)
            for _ in range(100):
                if asked.signal is not None:
                    break
                time.sleep(0.01)
            self.assertEqual(asked.signal, number)
        self.assertIs(signal.getsignal(number), before)
        self.assertEqual(Interrupted("", number).exit_code, 128 + number)

    def test_the_second_signal_ends_at_once(self):
        process = subprocess.Popen(
            [sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "begun\n")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), 143)
        process.stdout.close()

    def test_what_is_ignored_stays_ignored(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with watched() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            self.assertIsNone(asked.signal)
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)

    def test_another_thread_hears_nothing(self):
        seen = []

        def run():
            with watched() as asked:
                seen.append(asked.signal)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        self.assertEqual(seen, [None])


if __name__ == "__main__":
    tf.test.main()
