import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import random_bits, small_vae

import vae_tf
from vae_tf import callbacks, runs


def logs(val_elbo, elbo=-3.0):
    names = ("elbo", "reconstruction", "kl")
    values = dict.fromkeys([*names, *(f"val_{n}" for n in names)], elbo)
    return values | {"val_elbo": val_elbo}


class RunRecorderTest(parameterized.TestCase, tf.test.TestCase):
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

    def test_weights_are_those_of_the_best_epoch(self):
        recorder = self.recorder()
        bias = self.vae.decoder.likelihood.bias
        for epoch, val_elbo in enumerate([-9.0, -5.0, -7.0]):
            bias.assign(tf.fill(bias.shape, float(epoch)))
            recorder.on_epoch_end(epoch, logs(val_elbo))
        self.vae.load_weights(self.run_dir / runs.BEST_WEIGHTS)
        self.assertAllEqual(bias, tf.fill(bias.shape, 1.0))
        epochs = [row["epoch"] for row in runs.read_metrics(self.run_dir)]
        self.assertEqual(epochs, [1, 2, 3])

    def test_stops_when_patience_is_over(self):
        recorder = self.recorder(patience=2)
        stops = []
        for epoch, val_elbo in enumerate([-9.0, -5.0, -7.0, -6.0]):
            recorder.on_epoch_end(epoch, logs(val_elbo))
            stops.append(self.vae.stop_training)
        self.assertEqual(stops, [False, False, False, True])

    def test_a_diverged_run_stops_and_keeps_what_was_good(self):
        recorder = self.recorder()
        recorder.on_epoch_end(0, logs(-9.0))
        with self.assertRaisesRegex(
            vae_tf.UserError,
            "--learning_rate: .*received 7.0, .* epoch 2 ended .*nan",
        ):
            recorder.on_epoch_end(1, logs(float("nan"), float("nan")))
        self.assertLen(runs.read_metrics(self.run_dir), 1)
        self.assertLen(list((self.run_dir / "checkpoints").iterdir()), 1)

    def test_seconds_go_on_after_a_pause(self):
        history = [{"epoch": 1, "step": 9, "seconds": 100.0, **logs(-9.0)}]
        recorder = self.recorder(history)
        recorder.on_epoch_end(1, logs(-8.0))
        self.assertBetween(recorder.history[-1]["seconds"], 100.0, 160.0)

    def test_a_checkpoint_restores_everything_the_rest_depends_on(self):
        images = random_bits(8)
        recorder = self.recorder()
        recorder.on_epoch_end(0, logs(-5.0))  # the best, and long past
        self.vae.fit(images, shuffle=False, verbose=0)
        recorder.on_epoch_end(1, logs(-9.0))
        self.vae.fit(images, shuffle=False, verbose=0)
        expected = self.vae.get_weights()

        other = small_vae(seed=5)
        other.compile(optimizer=keras.optimizers.Adam(1e-2))
        other.optimizer.build(other.trainable_variables)
        history = callbacks.restore(self.run_dir, other)
        self.assertEqual([row["epoch"] for row in history], [1, 2])
        other.fit(images, shuffle=False, verbose=0)
        for ours, theirs in zip(other.get_weights(), expected):
            self.assertAllEqual(ours, theirs)

    def test_the_newest_good_checkpoint_is_used(self):
        recorder = self.recorder()
        for epoch in range(3):
            recorder.on_epoch_end(epoch, logs(-9.0 + epoch))
        files = sorted((self.run_dir / "checkpoints").iterdir())
        self.assertEqual(
            [f.name for f in files], ["epoch-00002.npz", "epoch-00003.npz"]
        )
        content = bytearray(files[-1].read_bytes())
        content[len(content) // 2] ^= 0xFF  # one flipped byte
        files[-1].write_bytes(content)
        self.assertLen(callbacks.restore(self.run_dir, self.vae), 2)
        for content in (b"", b"PK"):
            files[0].write_bytes(content)
            with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
                callbacks.restore(self.run_dir, self.vae)

    def test_refuses_a_run_that_has_lost_what_it_needs(self):
        recorder = self.recorder()
        for epoch in range(2):
            recorder.on_epoch_end(epoch, logs(-9.0 + epoch))
        (self.run_dir / runs.BEST_WEIGHTS).unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "best weights, received"):
            callbacks.restore(self.run_dir, self.vae)
        for file in (self.run_dir / "checkpoints").iterdir():
            file.unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
            callbacks.restore(self.run_dir, self.vae)

    def test_a_run_without_a_finished_epoch_begins_anew(self):
        before = self.vae.get_weights()
        self.assertEqual(callbacks.restore(self.run_dir, self.vae), [])
        self.assertAllEqual(self.vae.get_weights()[0], before[0])

    def test_refuses_another_model(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        other = small_vae(latent_dim=3)
        other.compile(optimizer=keras.optimizers.Adam(1e-2))
        other.optimizer.build(other.trainable_variables)
        before = [np.array(w) for w in other.get_weights()]
        with self.assertRaisesRegex(vae_tf.UserError, "with other variables"):
            callbacks.restore(self.run_dir, other)
        for old, new in zip(before, other.get_weights()):
            self.assertAllEqual(old, new)

    def test_refuses_missing_metrics(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        (self.run_dir / "metrics.csv").unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "the 1 epochs .*ved 0"):
            callbacks.restore(self.run_dir, self.vae)
