import os
import pathlib
import signal
import subprocess
import sys

import tensorflow as tf

import vae_tf
from vae_tf.runs.lock import LOCK, only_writer

HOLD = """
import pathlib, sys, time
from vae_tf.runs.lock import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class LockTest(tf.test.TestCase):
    def test_one_process_at_a_time_and_a_dead_one_holds_nothing(self):
        run_dir = self.create_tempdir().full_path
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, run_dir],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), "held\n")
        message = rf"written by process {holder.pid} on \S+ since \d{{4}}-"
        for _ in range(2):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                with only_writer(pathlib.Path(run_dir)):
                    self.fail("two writers")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        for _ in range(2):
            with only_writer(pathlib.Path(run_dir)):
                text = (pathlib.Path(run_dir) / LOCK).read_text()
                self.assertStartsWith(text, f"process {os.getpid()} on ")

    def test_a_directory_that_cannot_be_written(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "file"
        path.write_text("")
        with self.assertRaisesRegex(vae_tf.UserError, "Not a directory"):
            with only_writer(path):
                pass


if __name__ == "__main__":
    tf.test.main()
