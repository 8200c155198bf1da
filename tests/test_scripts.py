"""The commands as a user runs them, from start to end."""

import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import warnings
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from vae_tf.commands import evaluate, export, report, train
from vae_tf.explorer import __main__ as explorer
from vae_tf.runs import launch, training

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = {
    "train.py": train,
    "evaluate.py": evaluate,
    "export.py": export,
    "report": report,
}


# A run of which nothing is drawn, and for which XLA compiles no step.
SMALL = (
    "--hidden_units=8",
    "--figures_every=0",
    "--notensorboard",
    "--nojit_compile",
)


class ScriptsTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path)

    def test_evaluate_begins_with_what_was_found_and_its_worth(self):
        found = {
            "elbo": -23.664,
            "log_marginal_likelihood": -23.078,
            "standard_error": 0.309,
            "num_examples": 1797,
            "split": "test",
            "method": "importance",
            "num_importance_samples": 1000,
            "monte_carlo_standard_error": 0.018,
            "pareto_k_over_0.7": 0.0,
            "epochs_trained": 8,
            "epochs_asked": 8,
        }
        for changes, words in (
            ({}, "± 0.018 of K = 1,000 draws"),
            ({"pareto_k_over_0.7": 0.24}, "too low: for 24% of the images"),
            (
                {"method": "quadrature", "quadrature_error": 0.001},
                "exact, to 0.001 nats",
            ),
            (
                {"method": "annealed", "pareto_k_over_0.7": 0.9},
                "± 0.018 of its chains",
            ),
            ({"monte_carlo_standard_error": None}, "images of test"),
            (
                {"monte_carlo_standard_error": None, "epochs_trained": 3},
                "of a training that ended after 3 of 8 epochs",
            ),
        ):
            lines = evaluate.headline(found | changes).split("\n")
            self.assertIn("ELBO     = -23.66 nats", lines[0])
            self.assertIn("log p(x) = -23.08 ± 0.31", lines[1])
            self.assertIn("1,797 images of test", lines[1])
            self.assertIn(words, lines[-1])

    def run_script(self, name, *arguments, **environment):
        """In a process of its own."""
        return subprocess.run(
            [sys.executable, ROOT / name, *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )

    @contextlib.contextmanager
    def inside(self, directory):
        before = os.getcwd()
        os.chdir(directory)
        try:
            yield
        finally:
            os.chdir(before)

    def run_here(self, name, *arguments):
        """The same code without the seconds in which TensorFlow is imported."""
        command = COMMANDS[name]
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.object(sys, "argv", [name, *arguments]),
            mock.patch.object(warnings, "showwarning"),
            self.inside(self.directory),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                command.main()
            except SystemExit as stop:
                code = stop.code
        return subprocess.CompletedProcess(
            arguments, code, out.getvalue(), err.getvalue()
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
        result = self.run_script("train.py", *train, *SMALL)
        self.assertEqual(result.returncode, 0, result.stderr)
        last = result.stdout.strip().splitlines()[-1]
        self.assertStartsWith(last, "Best validation ELBO -")

        result = self.run_here("evaluate.py", "--num_importance_samples", "10")
        self.assertEqual(result.returncode, 0, result.stderr)
        measured = json.loads(
            (self.directory / "runs/latest/evaluation-test.json").read_text()
        )
        self.assertEqual(measured["num_importance_samples"], 10)
        self.assertRegex(result.stdout, f"elbo +{measured['elbo']:.3f}")
        one = ("--num_importance_samples=1", "--num_examples=1")
        result = self.run_here("evaluate.py", *one)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"\nlog p\(x\) = \S+, of 1 images")
        self.assertNotRegex(result.stdout, r"\nstandard_error")
        runs = ("runs/latest", os.path.realpath(self.directory / "runs/latest"))
        for typed in ([",".join(runs)], runs):
            result = self.run_here("evaluate.py", "--compare", *typed)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertLen(result.stdout.strip().splitlines(), 6)
            self.assertIn("Ranked by ELBO.", result.stdout)

        result = self.run_here("export.py")
        self.assertEqual(result.returncode, 0, result.stderr)
        bundle = self.directory / "saved_models/vae/1"
        self.assertTrue((bundle / "saved_model.pb").is_file())

        result = self.run_here("export.py", "--version", "1")
        self.assert_fails(result, "--version: expected one .* received 1")

        # What was not named when resuming is as it was.
        result = self.run_here(
            "train.py", "--resume", "--run_dir=runs/latest", "--epochs=3"
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = (self.directory / "runs/latest/metrics.csv").read_text()
        self.assertLen(rows.splitlines(), 4)
        result = self.run_here(
            "train.py", "--resume", "--run_dir=runs/latest", "--latent_dim=5"
        )
        self.assert_fails(result, "--latent_dim: expected 2, .* received 5")

    def test_without_mnist_or_a_network_it_says_so_and_trains_on_digits(self):
        if _reaches_the_internet():
            self.skipTest("MNIST can be downloaded here")
        empty = self.create_tempdir().full_path
        began = time.monotonic()
        with mock.patch.dict(os.environ, TFDS_DATA_DIR=empty):
            result = self.run_here("train.py", "--epochs=1", *SMALL)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, "WARNING: no --dataset .* 8x8 digits")
        self.assertLess(time.monotonic() - began, 120)
        config = json.loads(
            (self.directory / "runs/latest/config.json").read_text()
        )
        self.assertEqual(config["dataset"], "digits")
        # A dataset that was named never falls back.
        with mock.patch.dict(os.environ, TFDS_DATA_DIR=empty):
            result = self.run_here("train.py", "--dataset", "mnist")
        self.assert_fails(result, "--dataset: expected .* received 'mnist'")

    @parameterized.named_parameters(
        ("train", "train.py", ["--latent_dim=0"], "--latent_dim: expected"),
        ("dataset", "train.py", ["--dataset=mnits"], "--dataset: .*'mnits'"),
        ("evaluate", "evaluate.py", [], "--run_dir: .*'runs/latest'"),
        ("split", "evaluate.py", ["--split=dev"], "--split: expected one of"),
        ("compare", "evaluate.py", ["--compare", "a", "b"], "--compare: .*'a'"),
        (
            "beside",
            "evaluate.py",
            ["--compare", "a", "b", "--seed=1"],
            "--seed: expected none beside --compare, .* received 1",
        ),
        ("export", "export.py", ["--run_dir=none"], "--run_dir: .*'none'"),
        ("bucket", "export.py", ["--export_dir=s3://b/x"], "_dir: .*aws s3 cp"),
        ("nowhere", "export.py", ["--export_dir="], "--export_dir: .*''"),
        ("run", "train.py", ["--run_dir=gs://b"], "--run_dir: .*gcloud"),
        ("version", "export.py", [f"--version={2**63}"], "--version: .*<= 92"),
        ("report", "report", ["--run_dir=none"], "--run_dir: .*'none'"),
        ("flag", "export.py", ["--typo"], "Unknown command line flag 'typo'"),
    )
    def test_mistakes(self, script, arguments, message):
        self.assert_fails(self.run_here(script, *arguments), message)
        self.assertEmpty(os.listdir(self.directory))

    def test_a_mistake_in_a_process_of_its_own(self):
        result = self.run_script("evaluate.py", "--run_dir=none")
        self.assert_fails(result, "--run_dir: .*'none'")
        self.assertEqual(result.stdout, "")

    def test_another_backend_of_keras(self):
        small = ("--dataset=digits", "--epochs=1")
        result = self.run_script("train.py", *small, KERAS_BACKEND="torch")
        self.assert_fails(result, "KERAS_BACKEND: .*'tensorflow'.*'torch'")

    @parameterized.parameters("train.py", "evaluate.py", "export.py")
    def test_help_and_length(self, script):
        result = self.run_script(script, "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("--run_dir:", result.stdout)
        self.assertLessEqual(len((ROOT / script).read_text().splitlines()), 100)

    def test_every_command_is_installed_under_a_name(self):
        installed = {
            point.name: point.load()
            for point in importlib.metadata.entry_points(
                group="console_scripts"
            )
            if point.name.startswith("vae-")
        }
        self.assertEqual(
            installed,
            {
                f"vae-{name.removesuffix('.py')}": command.main
                for name, command in {
                    **COMMANDS,
                    "launch": launch,
                    "explorer": explorer,
                }.items()
            },
        )

    def test_says_what_comes_next_in_the_words_of_who_asked(self):
        for name, expected in (
            ("train.py", "python evaluate.py --run_dir"),
            ("vae-train", "vae-evaluate --run_dir"),
        ):
            with (
                mock.patch.object(sys, "argv", [name]),
                mock.patch.object(shutil, "which", lambda _: sys.executable),
            ):
                self.assertStartsWith(training.next_steps("a b"), expected)
            # Of an environment that is not active, by its path.
            with (
                mock.patch.object(sys, "argv", [name]),
                mock.patch.object(shutil, "which", lambda _: None),
            ):
                self.assertRegex(
                    training.next_steps("a b"), rf"^(\S+/)?{expected}"
                )


def _reaches_the_internet():
    import socket

    try:
        socket.create_connection(("storage.googleapis.com", 443), 3).close()
    except OSError:
        return False
    return True
