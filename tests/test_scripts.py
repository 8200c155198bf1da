"""The three scripts as a user runs them, from start to end."""

import json
import os
import pathlib
import subprocess
import sys
import time

import tensorflow as tf
from absl.testing import parameterized

ROOT = pathlib.Path(__file__).parents[1]


class ScriptsTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path)

    def run_script(self, name, *arguments, **environment):
        return subprocess.run(
            [sys.executable, ROOT / name, *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    def assert_fails(self, result, message):
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        errors = [
            line
            for line in result.stderr.splitlines()
            if line.startswith("ERROR:")
        ]
        self.assertLen(errors, 1)
        self.assertRegex(errors[0], message)

    def test_train_evaluate_export(self):
        train = ("--dataset", "digits", "--epochs", "2", "--latent_dim", "2")
        result = self.run_script("train.py", *train)
        self.assertEqual(result.returncode, 0, result.stderr)
        last = result.stdout.strip().splitlines()[-1]
        self.assertStartsWith(last, "Best validation ELBO -")

        result = self.run_script(
            "evaluate.py", "--num_importance_samples", "10"
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        measured = json.loads(
            (self.directory / "runs/latest/evaluation-test.json").read_text()
        )
        self.assertEqual(measured["num_importance_samples"], 10)
        self.assertRegex(result.stdout, f"elbo +{measured['elbo']:.3f}")
        one = ("--num_importance_samples=1", "--num_examples=1")
        result = self.run_script("evaluate.py", *one)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"\nstandard_error +None\n")

        result = self.run_script("export.py")
        self.assertEqual(result.returncode, 0, result.stderr)
        bundle = self.directory / "saved_models/vae/1"
        self.assertTrue((bundle / "saved_model.pb").is_file())

        result = self.run_script("export.py", "--version", "1")
        self.assert_fails(result, "--version: expected one .* received 1")

        # What was not named when resuming is as it was.
        result = self.run_script(
            "train.py", "--resume", "--run_dir=runs/latest", "--epochs=3"
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = (self.directory / "runs/latest/metrics.csv").read_text()
        self.assertLen(rows.splitlines(), 4)
        result = self.run_script(
            "train.py", "--resume", "--run_dir=runs/latest", "--latent_dim=5"
        )
        self.assert_fails(result, "--latent_dim: expected 2, .* received 5")

    def test_without_mnist_or_a_network_it_says_so_and_trains_on_digits(self):
        if _reaches_the_internet():
            self.skipTest("MNIST can be downloaded here")
        empty = self.create_tempdir().full_path
        began = time.monotonic()
        result = self.run_script(
            "train.py", "--epochs", "1", TFDS_DATA_DIR=empty
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, "WARNING: no --dataset .* 8x8 digits")
        self.assertLess(time.monotonic() - began, 120)
        config = json.loads(
            (self.directory / "runs/latest/config.json").read_text()
        )
        self.assertEqual(config["dataset"], "digits")
        # A dataset that was named never falls back.
        result = self.run_script(
            "train.py", "--dataset", "mnist", TFDS_DATA_DIR=empty
        )
        self.assert_fails(result, "--dataset: expected .* received 'mnist'")

    @parameterized.named_parameters(
        ("train", "train.py", ["--latent_dim=0"], "--latent_dim: expected"),
        ("dataset", "train.py", ["--dataset=mnits"], "--dataset: .*'mnits'"),
        ("evaluate", "evaluate.py", [], "--run_dir: .*'runs/latest'"),
        ("split", "evaluate.py", ["--split=dev"], "--split: expected one of"),
        ("export", "export.py", ["--run_dir=none"], "--run_dir: .*'none'"),
        ("flag", "export.py", ["--typo"], "Unknown command line flag 'typo'"),
    )
    def test_mistakes(self, script, arguments, message):
        self.assert_fails(self.run_script(script, *arguments), message)
        self.assertEmpty(os.listdir(self.directory))

    @parameterized.parameters("train.py", "evaluate.py", "export.py")
    def test_help_and_length(self, script):
        result = self.run_script(script, "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("--run_dir:", result.stdout)
        self.assertLessEqual(len((ROOT / script).read_text().splitlines()), 100)


def _reaches_the_internet():
    import socket

    try:
        socket.create_connection(("storage.googleapis.com", 443), 3).close()
    except OSError:
        return False
    return True
