"""The package as `pip install` brings it, away from the checkout."""

import os
import pathlib
import site
import subprocess
import sys

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
class WheelTest(tf.test.TestCase):
    def test_trains_evaluates_and_exports_in_an_empty_folder(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "PYTHONPATH"
        }

        def run(*command):
            result = subprocess.run(
                [str(word) for word in command],
                cwd=directory / "empty",
                env=environment,
                capture_output=True,
                text=True,
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            return result.stdout

        (directory / "empty").mkdir()
        pip = [sys.executable, "-m", "pip", "--quiet"]
        run(*pip, "wheel", "--no-deps", "-w", directory, ROOT)
        run(sys.executable, "-m", "venv", directory / "venv")
        (wheel,) = directory.glob("*.whl")
        python = directory / "venv/bin/python"
        run(python, "-m", "pip", "--quiet", "install", "--no-deps", wheel)
        # What it depends on, from the environment of the tests, whose own
        # installation of the package is a link that this does not follow.
        (packages,) = (directory / "venv/lib").glob("*/site-packages")
        (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
        place = run(python, "-c", "import vae_tf; print(vae_tf.__file__)")
        self.assertStartsWith(place, str(packages))

        commands = directory / "venv/bin"
        small = ("--epochs=2", "--hidden_units=8", "--figures_every=1")
        out = run(commands / "vae-train", "--dataset=digits", *small)
        self.assertRegex(out, "Next: vae-evaluate --run_dir runs/digits-")
        out = run(commands / "vae-evaluate", "--num_importance_samples=10")
        self.assertRegex(out, r"log_marginal_likelihood +-\d")
        run(commands / "vae-report")
        self.assertTrue((directory / "empty/runs/latest/report.html").is_file())
        self.assertIn("--bundle", run(commands / "vae-explorer", "--help"))
        self.assertTrue((packages / "vae_tf/explorer/page/main.js").is_file())
        run(commands / "vae-export")
        bundle = directory / "empty/saved_models/vae/1/saved_model.pb"
        self.assertTrue(bundle.is_file())
        for name in ("train", "evaluate", "export", "report"):
            self.assertIn("--run_dir", run(commands / f"vae-{name}", "--help"))
