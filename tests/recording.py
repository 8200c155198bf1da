"""A run as it is recorded, epoch by epoch, without training."""

import pathlib
import time

import keras
import tensorflow as tf
from small import small_vae

import vae_tf
from vae_tf.runs import callbacks
from vae_tf.runs.checkpoints import Progress
from vae_tf.runs.interruption import Asked


def logs(val_elbo, elbo=-3.0):
    names = ("elbo", "reconstruction", "kl")
    values = dict.fromkeys([*names, *(f"val_{n}" for n in names)], elbo)
    return values | {"val_elbo": val_elbo}


class Recorder(callbacks.RunRecorder):
    """One that has written everything when it returns."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.background.wait()


class RecordedRun(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = pathlib.Path(self.create_tempdir().full_path)
        (self.run_dir / "checkpoints").mkdir()
        self.vae = small_vae()
        self.vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        self.vae.optimizer.build(self.vae.trainable_variables)

    def recorder(self, history=(), progress=None, **settings):
        recorder = Recorder(
            self.run_dir,
            vae_tf.Config(learning_rate=7.0, **settings),
            lambda epoch: None,
            progress or Progress(list(history)),
            Asked(),
            time.monotonic(),
        )
        recorder.set_model(self.vae)
        recorder.set_params({"steps": 100})
        recorder.on_train_begin()
        return recorder
