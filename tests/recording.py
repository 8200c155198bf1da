"""A run as it is recorded, epoch by epoch, without training."""

import pathlib

import keras
import tensorflow as tf
from small import small_vae

import vae_tf
from vae_tf.runs import callbacks


def logs(val_elbo, elbo=-3.0):
    names = ("elbo", "reconstruction", "kl")
    values = dict.fromkeys([*names, *(f"val_{n}" for n in names)], elbo)
    return values | {"val_elbo": val_elbo}


class RecordedRun(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = pathlib.Path(self.create_tempdir().full_path)
        (self.run_dir / "checkpoints").mkdir()
        self.vae = small_vae()
        self.vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        self.vae.optimizer.build(self.vae.trainable_variables)

    def recorder(self, history=(), patience=0):
        recorder = callbacks.RunRecorder(
            self.run_dir,
            vae_tf.Config(early_stopping_patience=patience, learning_rate=7.0),
            lambda epoch: None,
            list(history),
        )
        recorder.set_model(self.vae)
        recorder.on_train_begin()
        return recorder
