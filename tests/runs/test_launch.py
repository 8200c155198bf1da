import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import directory

ROOT = pathlib.Path(vae_tf.__file__).parents[1]
FLAGS = (
    *("--dataset=digits", "--batch_size=128", "--hidden_units=16"),
    *("--epochs=4", "--jit_compile=false", "--tensorboard=false"),
)
FAMILIES = {
    "mean_field": (),
    "iaf": ("--posterior=iaf", "--flow_units=8"),
    "vamp": ("--prior=vamp", "--num_components=5"),
    "iwae": ("--objective=iwae", "--num_samples=3"),
}


class LaunchTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.place = pathlib.Path(self.create_tempdir().full_path)

    def start(self, *flags, workers=2):
        command = [sys.executable, "-m", "vae_tf.runs.launch"]
        process = subprocess.Popen(
            [*command, f"--workers={workers}", "--", *flags],
            cwd=self.place,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def run_to_the_end(self, *flags, **kwargs):
        process = self.start(*flags, **kwargs)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text

    def rows(self, name):
        rows = directory.read_metrics(self.place / name)
        return [
            {k: v for k, v in row.items() if k != "seconds"} for row in rows
        ]

    def weights(self, name):
        return vae_tf.load(self.place / name).get_weights()

    def test_a_mistake_ends_all(self):
        code, text = self.run_to_the_end(*FLAGS, "--latent_dim=0")
        self.assertEqual(code, 2, text)
        # The first that says so ends the others.
        self.assertRegex(text, r"(?m)^\[[01]\] ERROR: --latent_dim: expected")
        code, text = self.run_to_the_end()
        self.assertEqual(code, 2, text)
        self.assertIn("ERROR: vae-launch: expected flags of vae-train", text)

    @parameterized.parameters(*FAMILIES)
    @pytest.mark.slow
    def test_two_workers_train_what_one_process_does(self, family):
        flags = (*FLAGS, *FAMILIES[family], "--figures_every=0")
        code, text = self.run_to_the_end(*flags, "--run_dir=two")
        self.assertEqual(code, 0, text)
        code, text = self.run_to_the_end(*flags, "--run_dir=one", workers=1)
        self.assertEqual(code, 0, text)
        for one, two in zip(self.rows("one"), self.rows("two"), strict=True):
            self.assertAllClose(one, two, 1e-5)
        for one, two in zip(
            self.weights("one"), self.weights("two"), strict=True
        ):
            self.assertAllClose(one, two, 1e-5, 1e-5)

    @pytest.mark.slow
    def test_a_killed_worker_is_as_if_nothing_had_been(self):
        flags = (*FLAGS, "--figures_every=1")
        code, text = self.run_to_the_end(*flags, "--run_dir=whole")
        self.assertEqual(code, 0, text)
        for number in (signal.SIGKILL, signal.SIGTERM):
            name = f"cut{number}"
            process = self.start(*flags, f"--run_dir={name}")
            for line in process.stdout:
                if re.search("Epoch 3/4", line):
                    break
            if number == signal.SIGTERM:
                process.terminate()
            else:
                found = subprocess.run(
                    ["pgrep", "--newest", "--full", f"run_dir={name}"],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                os.kill(int(found.stdout), signal.SIGKILL)
            text, _ = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 128 + number, text)
            code, text = self.run_to_the_end(
                *flags, f"--run_dir={name}", "--resume"
            )
            self.assertEqual(code, 0, text)
            self.assertEqual(self.rows(name), self.rows("whole"))
            for ours, theirs in zip(
                self.weights(name), self.weights("whole"), strict=True
            ):
                self.assertAllEqual(ours, theirs)
            for animation in ("posterior.gif", "prior_predictive.gif"):
                paths = (
                    self.place / run / "figures" / animation
                    for run in (name, "whole")
                )
                ours, theirs = (
                    np.frombuffer(p.read_bytes(), np.uint8) for p in paths
                )
                self.assertAllEqual(ours, theirs)


if __name__ == "__main__":
    tf.test.main()
