"""A small finished run, trained once for the tests of a class."""

import os
import pathlib
import shutil
import tempfile

import tensorflow as tf

import vae_tf

CONFIG = dict(
    dataset="digits",
    epochs=2,
    hidden_units=(16, 8),
    jit_compile=False,
    figures_every=0,
    tensorboard=False,
)


class FinishedRun(tf.test.TestCase):
    changes = {}  # of CONFIG

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, directory)
        cls.addClassCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        cls.finished = pathlib.Path(directory) / "run"
        settings = CONFIG | cls.changes
        vae_tf.train(vae_tf.Config(run_dir=str(cls.finished), **settings))

    def copy(self):
        """A finished run to damage."""
        path = pathlib.Path(self.create_tempdir().full_path) / "run"
        return pathlib.Path(shutil.copytree(self.finished, path))
