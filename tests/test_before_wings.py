"""What was written before the package had wings still says the same; see
fixtures/make_before_wings.py.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import vae_tf
from vae_tf.serving import check

ARCHIVE = pathlib.Path(__file__).parent / "fixtures/before_wings.tar.xz"


class BeforeWingsTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        shutil.unpack_archive(ARCHIVE, cls.directory)
        with np.load(cls.directory / "expected.npz") as file:
            cls.expected = dict(file)

    def assert_gives_the_same(self, vae, name):
        then = {
            key.removeprefix(f"{name}/"): value
            for key, value in self.expected.items()
            if key.startswith(f"{name}/")
        }
        images = then["images"]
        terms = vae.elbo_terms(images, then["noise"])
        posterior = vae.encoder(images)
        for key, now in {
            "elbo": terms.elbo,
            "kl": terms.kl,
            "mean": posterior.mean(),
            "stddev": posterior.stddev(),
            "reconstruction": vae.reconstruct(images),
            "log_joint": vae.log_joint(images, then["mean"]),
        }.items():
            self.assertAllClose(now, then[key], 1e-5, 1e-5, key)

    def test_a_run(self):
        self.assert_gives_the_same(vae_tf.load(self.directory / "run"), "run")

    @pytest.mark.slow
    def test_a_run_is_measured(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        before = dict(np.load("run/evaluation-test.npz"))
        vae_tf.evaluate_run("run", num_importance_samples=10)
        after = dict(np.load("run/evaluation-test.npz"))
        self.assertAllClose(after["kl"], before["kl"], 1e-4, 1e-4)
        # Draws have other keys since then: equal within Monte Carlo errors.
        log_p = "log_marginal_likelihood"
        error = np.sqrt(after["variance"] + before["variance"])
        apart = np.abs(after[log_p] - before[log_p])
        self.assertAllLess(apart - 6 * error, 1e-2)
        self.assertLess(abs(np.mean(after["elbo"] - before["elbo"])), 0.02)

    def test_a_keras_file(self):
        path = self.directory / "vae.keras"
        self.assert_gives_the_same(vae_tf.load(path), "keras")
        self.assert_gives_the_same(keras.saving.load_model(path), "keras")

    def test_a_bundle(self):
        bundle = self.directory / "bundle/1"
        result = subprocess.run(
            [sys.executable, check.__file__, str(bundle)],
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        session = check.Session(str(bundle))
        cases = {
            key.removeprefix("bundle/"): value
            for key, value in self.expected.items()
            if key.startswith("bundle/")
        }
        names = {key.split("/")[0] for key in cases}
        self.assertLen(names, 5)
        for name in names:
            sides = [
                {
                    key.rsplit("/", 1)[1]: value
                    for key, value in cases.items()
                    if key.startswith(f"{name}/{side}/")
                }
                for side in ("input", "output")
            ]
            got = session.run(name, sides[0])
            self.assertSameElements(got, sides[1])
            for key, value in got.items():
                self.assertAllClose(value, sides[1][key], 1e-5, 1e-5, key)
