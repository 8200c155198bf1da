import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf

DATA = {
    "variant": "mnist/3.0.1",
    "levels": 256,
    "image_shape": [28, 28, 1],
    "splits": {"train": 55000, "validation": 5000, "test": 10000},
    "checksum": "sha256:1",
}


class ComparingTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.runs = pathlib.Path(self.create_tempdir().full_path)

    def run_of(self, name, gain=0.0, config=None, data=None, **changes):
        """A directory with what a comparison reads of a run."""
        run_dir = self.runs / name
        run_dir.mkdir()
        settings = dataclasses.asdict(vae_tf.Config(run_dir=str(run_dir)))
        settings |= {"data": DATA | (data or {})} | (config or {})
        (run_dir / "config.json").write_text(json.dumps(settings))
        generator = np.random.default_rng(0)
        log_p = 25 * generator.standard_normal(30) - 90
        log_p += gain * generator.uniform(size=30)
        values = {
            "dataset": "mnist/3.0.1",
            "binarization": "dynamic",
            "dequantization": "none",
            "split": "test",
            "likelihood": "bernoulli",
            "method": "importance",
            "num_examples": 30,
            "elbo": log_p.mean() - 5,
            "log_marginal_likelihood": log_p.mean(),
            "num_importance_samples": 1000,
        } | changes
        (run_dir / "evaluation-test.json").write_text(json.dumps(values))
        np.savez(
            run_dir / "evaluation-test.npz",
            elbo=log_p - 5,
            log_marginal_likelihood=log_p,
        )
        return run_dir

    def assert_refuses(self, message, *run_dirs, **kwargs):
        with self.assertRaisesRegex(vae_tf.UserError, message) as caught:
            vae_tf.compare(*run_dirs, **kwargs)
        self.assertLen(str(caught.exception).splitlines(), 1)

    def test_reads_what_was_measured_image_by_image(self):
        first = self.run_of("a", config={"figures_every": 0, "seed": 3})
        second = self.run_of("b", 1, config={"hidden_units": [8, 4]})
        found = vae_tf.compare(first, str(second))
        self.assertEqual(
            [row.run for row in found.rows], [str(second), str(first)]
        )
        self.assertEqual(
            found.rows[0].settings, {"hidden_units": (8, 4), "seed": 0}
        )
        # 30 gains, uniform between 0 and 1; log p(x) itself spreads by 25.
        better = found.rows[0]
        self.assertBetween(better.difference, 0.3, 0.7)
        self.assertBetween(
            better.difference_standard_error * 360**0.5, 0.7, 1.3
        )
        values = json.loads((second / "evaluation-test.json").read_text())
        self.assertAllClose(
            better.log_marginal_likelihood, values["log_marginal_likelihood"]
        )
        self.assertAllClose(better.elbo, values["elbo"])
        again = vae_tf.compare(first, first)
        self.assertEqual([row.difference for row in again.rows], [0, 0])

    @parameterized.named_parameters(
        (
            "static_against_dynamic",
            {
                "dataset": "binarized_mnist/1.0.0",
                "binarization": "none",
                "data": {"variant": "binarized_mnist/1.0.0", "levels": 2},
            },
            "same dataset, received mnist/3.0.1 .* and binarized_mnist/1.0.0",
        ),
        (
            "density",
            {"likelihood": "normal", "dequantization": "uniform"},
            "probabilities .* and densities .*: the logarithm of a density",
        ),
        (
            "one_draw",
            {"num_importance_samples": 1},
            r"log p\(x\) .* and ELBO .*: an ELBO, and with K = 1",
        ),
        (
            "elbo_alone",
            {"log_marginal_likelihood": None},
            r"log p\(x\) .* and ELBO .*: an ELBO",
        ),
        ("pixels", {"data": {"checksum": "sha256:2"}}, "same checksum .*:2"),
        ("size", {"data": {"image_shape": [14, 14, 1]}}, "same image shape"),
    )
    def test_refuses_what_does_not_compare(self, changes, reason):
        runs = self.run_of("a"), self.run_of("b", **changes)
        self.assert_refuses(f"--compare: expected runs of .*{reason}", *runs)

    def test_says_which_command_measures_a_run(self):
        first, second = self.run_of("a"), self.run_of("b c")
        for name in ("evaluation-test.npz", "evaluation-test.json"):
            (second / name).unlink()
            self.assert_refuses(
                "--compare: expected runs measured on the test split, received "
                f"'{second}' without {name}: .*evaluate.* --run_dir "
                f"'{second}' --split test makes it",
                first,
                second,
            )
        self.assert_refuses(
            "--split validation", first, first, split="validation"
        )

    def test_refuses_what_is_no_run_or_split(self):
        run_dir = self.run_of("a")
        self.assert_refuses("--compare: .* config.json, .*'x'", run_dir, "x")
        self.assert_refuses("--split: .*'dev'", run_dir, run_dir, split="dev")
        self.assert_refuses("at least two runs, received .*a", run_dir)
        self.assert_refuses("at least two runs, received none")

    def test_refuses_files_that_are_damaged_or_of_two_measurements(self):
        first = self.run_of("a")
        mended = "damaged file .*: .*evaluate.* makes it anew"
        for name, content in (
            ("evaluation-test.json", b"{"),
            ("evaluation-test.json", b"[]"),
            ("evaluation-test.json", b"{}"),
            ("evaluation-test.npz", b"PK"),
            ("evaluation-test.npz", b"PK\x03\x04"),
        ):
            second = self.run_of("b")
            (second / name).write_bytes(content)
            self.assert_refuses(mended, first, second)
            shutil.rmtree(second)
        for number, changes in enumerate(
            ({"elbo": -90.0}, {"log_marginal_likelihood": -80.0})
        ):
            second = self.run_of(f"c{number}", **changes)
            self.assert_refuses("of the two files differs", second, first)
        second = self.run_of("d", num_examples=31)
        self.assert_refuses("of the two files differs", second, first)

    def test_a_measurement_of_version_0_1_names_no_method(self):
        first = self.run_of("a")
        path = first / "evaluation-test.json"
        values = json.loads(path.read_text())
        del values["method"]
        path.write_text(json.dumps(values))
        found = vae_tf.compare(first, self.run_of("b"))
        self.assertEqual([row.method for row in found.rows], ["importance"] * 2)

    def test_needs_no_tensorflow(self):
        code = (
            "import sys, vae_tf.runs.comparing; "
            "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
