"""A training that starts from another run's weights; those that go on with a
run are in test_training.py.
"""

import dataclasses
import os
import pathlib
import shutil
import tempfile

import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import directory

CONFIG = vae_tf.Config(
    dataset="digits",
    epochs=2,
    batch_size=128,
    hidden_units=(16, 8),
    jit_compile=False,
    figures_every=0,
    tensorboard=False,
)


class InitialRunTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, path)
        cls.first = vae_tf.train(
            dataclasses.replace(CONFIG, run_dir=str(path / "first"))
        )

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.create_tempdir().full_path)

    def train(self, **changes):
        changes = {
            "run_dir": "second",
            "initial_run": str(self.first.run_dir),
            "epochs": 1,
        } | changes
        return vae_tf.train(dataclasses.replace(CONFIG, **changes))

    def assert_same_weights(self, one, two):
        for ours, theirs in zip(one.weights, two.weights, strict=True):
            # An average of equal weights is rounded.
            self.assertAllClose(ours, theirs, 1e-6, 1e-6)

    @parameterized.parameters(0.0, 0.9)
    def test_starts_where_the_other_was_best(self, ema_momentum):
        # Steps too small for float32 leave what it starts from, which the
        # images have no say in, nor has a seed.
        second = self.train(
            learning_rate=1e-30, seed=3, ema_momentum=ema_momentum
        )
        self.assert_same_weights(second.vae, self.first.vae)
        top = directory.best(self.first.history)
        self.assertAllClose(
            second.history[0]["val_elbo"], top["val_elbo"], 1e-6
        )

    def test_goes_on_with_another_objective(self):
        second = self.train(objective="iwae", num_samples=3)
        self.assertGreater(
            second.history[0]["val_iwae"], self.first.history[-1]["val_elbo"]
        )

    @pytest.mark.slow
    def test_resumes_without_the_other(self):
        constant = {"lr_schedule": "constant"}
        whole = self.train(run_dir="whole", epochs=2, **constant)
        shutil.copytree(self.first.run_dir, "first")
        self.train(initial_run="first", **constant)
        shutil.rmtree("first")
        resumed = self.train(
            initial_run=None, epochs=2, resume=True, **constant
        )
        self.assert_same_weights(resumed.vae, whole.vae)

    @parameterized.parameters(
        ({"latent_dim": 3}, "shapes of weights 64x16, .*received.*64x16"),
        ({"hidden_units": (16, 4)}, "shapes of weights"),
        ({"activation": "tanh"}, "activation tanh, received .* of relu"),
        ({"posterior": "iaf"}, "posterior iaf, received .* of mean_field"),
        ({"initial_run": "none"}, "--initial_run: .*received 'none'"),
        ({"inference": "mean_field"}, "--initial_run: expected none with"),
    )
    def test_refuses_a_run_of_another_model(self, changes, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            self.train(**changes)
        self.assertFalse(os.path.exists("second"))


if __name__ == "__main__":
    tf.test.main()
