import os
from unittest import mock

import keras
import numpy as np
from recording import RecordedRun, logs
from small import random_bits, small_vae

import vae_tf
from vae_tf.runs import checkpoints, directory


class CheckpointsTest(RecordedRun):
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
        progress = checkpoints.restore(self.run_dir, other)
        self.assertEqual([row["epoch"] for row in progress.history], [1, 2])
        self.assertEqual((progress.step, progress.running), (0, ()))
        other.fit(images, shuffle=False, verbose=0)
        for ours, theirs in zip(other.get_weights(), expected):
            self.assertAllEqual(ours, theirs)

    def test_the_newest_good_checkpoint_is_used(self):
        recorder = self.recorder()
        for epoch in range(4):
            recorder.on_epoch_end(epoch, logs(-9.0 + epoch))
        files = sorted((self.run_dir / "checkpoints").iterdir())
        self.assertEqual(
            [f.name for f in files],
            [f"epoch-0000{epoch}.npz" for epoch in (2, 3, 4)],
        )
        content = bytearray(files[-1].read_bytes())
        with np.load(files[-1]) as arrays:
            place = content.index(arrays["0"].tobytes())
        content[place] ^= 0xFF  # one flipped byte
        files[-1].write_bytes(content)
        with self.assertWarnsRegex(UserWarning, "00004.npz is damaged"):
            progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertLen(progress.history, 3)
        for content in (b"", b"PK"):
            for file in files[:2]:
                file.write_bytes(content)
            with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
                checkpoints.restore(self.run_dir, self.vae)

    def test_a_state_within_an_epoch_comes_after_that_before_it(self):
        recorder = self.recorder(checkpoint_minutes=1e-9)
        recorder.on_epoch_end(0, logs(-9.0))
        images = random_bits(8)
        recorder.on_epoch_begin(1)
        self.vae.fit(images, batch_size=2, shuffle=False, verbose=0)
        expected = [np.array(v) for v in self.vae.metrics_variables]
        self.assertGreater(sum(np.abs(value).sum() for value in expected), 0)
        for batch in (31, 63, 99):  # the last one of the epoch is left out
            recorder.on_train_batch_end(batch)
        names = [
            "epoch-00001-step-000000032.npz",
            "epoch-00001-step-000000064.npz",
            "epoch-00001.npz",
        ]
        files = sorted((self.run_dir / "checkpoints").iterdir())
        self.assertEqual([file.name for file in files], names)
        weights = self.vae.get_weights()

        other = small_vae(seed=5)
        other.compile(optimizer=keras.optimizers.Adam(1e-2))
        other.optimizer.build(other.trainable_variables)
        progress = checkpoints.restore(self.run_dir, other)
        self.assertEqual((len(progress.history), progress.step), (1, 64))
        for ours, theirs in zip(progress.running, expected, strict=True):
            self.assertAllEqual(ours, [theirs])  # of the one device
        for ours, theirs in zip(other.get_weights(), weights):
            self.assertAllEqual(ours, theirs)
        # The epoch's end is later.
        recorder.on_epoch_end(1, logs(-8.0))
        progress = checkpoints.restore(self.run_dir, other)
        self.assertEqual((len(progress.history), progress.step), (2, 0))

    def test_refuses_a_run_that_has_lost_what_it_needs(self):
        recorder = self.recorder()
        for epoch in range(2):
            recorder.on_epoch_end(epoch, logs(-9.0 - epoch))
        weights = self.run_dir / directory.BEST_WEIGHTS
        content = weights.read_bytes()
        weights.unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "best weights, received"):
            checkpoints.restore(self.run_dir, self.vae)
        weights.write_bytes(content)
        checkpoints.restore(self.run_dir, self.vae)
        for file in (self.run_dir / "checkpoints").iterdir():
            file.unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
            checkpoints.restore(self.run_dir, self.vae)

    def test_a_run_without_a_finished_epoch_begins_anew(self):
        before = self.vae.get_weights()
        progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertEqual(progress, checkpoints.Progress([]))
        self.assertAllEqual(self.vae.get_weights()[0], before[0])

    def test_refuses_another_model(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        other = small_vae(latent_dim=3)
        other.compile(optimizer=keras.optimizers.Adam(1e-2))
        other.optimizer.build(other.trainable_variables)
        before = [np.array(w) for w in other.get_weights()]
        with self.assertRaisesRegex(vae_tf.UserError, "with other variables"):
            checkpoints.restore(self.run_dir, other)
        for old, new in zip(before, other.get_weights()):
            self.assertAllEqual(old, new)

    def test_what_a_killed_run_has_not_written_is_written_of_its_state(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        metrics = self.run_dir / directory.METRICS
        weights = self.run_dir / directory.BEST_WEIGHTS
        rows = metrics.read_text()
        metrics.unlink()
        weights.unlink()
        expected = self.vae.get_weights()
        checkpoints.restore(self.run_dir, other := self.vae)
        self.assertEqual(metrics.read_text(), rows)
        other.set_weights([0 * value for value in expected])
        directory.load_best(self.run_dir, other)
        for ours, theirs in zip(other.get_weights(), expected):
            self.assertAllEqual(ours, theirs)

    def test_a_constant_step_size_is_that_of_the_resumed_training(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        other = small_vae()
        other.compile(optimizer=keras.optimizers.Adam(3e-4))
        other.optimizer.build(other.trainable_variables)
        checkpoints.restore(self.run_dir, other)
        self.assertAllClose(float(other.optimizer.learning_rate), 3e-4)

    def test_weights_that_are_no_numbers_are_not_gone_back_to(self):
        recorder = self.recorder(checkpoint_minutes=1e-9)
        recorder.on_epoch_end(0, logs(-9.0))
        kernel = self.vae.trainable_variables[0]
        kernel.assign(np.full(kernel.shape, np.nan, np.float32))
        recorder.on_epoch_begin(1)
        recorder.on_train_batch_end(31)
        progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertEqual((len(progress.history), progress.step), (1, 0))

    def test_a_full_disk_leaves_what_was_kept(self):
        recorder = self.recorder()
        recorder.on_epoch_end(0, logs(-9.0))
        before = self.files()
        full = mock.Mock(side_effect=OSError(28, "No space left on device"))
        for place, name in (
            (np, "savez"),
            (os, "posix_fallocate"),
            (os, "replace"),
        ):
            with (
                mock.patch.object(place, name, full),
                self.assertRaisesRegex(vae_tf.UserError, "No space left"),
            ):
                recorder.on_epoch_end(1, logs(-8.0))
            progress = checkpoints.restore(self.run_dir, self.vae)
            self.assertIn(len(progress.history), (1, 2))
            directory.load_best(self.run_dir, self.vae)
            recorder.history[1:] = []
        self.assertContainsSubset(before, self.files())

    def files(self):
        return {p.name for p in self.run_dir.rglob("*") if p.is_file()}

    def test_a_changed_row_is_not_believed(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        metrics = self.run_dir / directory.METRICS
        rows = metrics.read_text()
        metrics.write_text(rows.replace("-9.0", "-8.0"))
        with self.assertRaisesRegex(vae_tf.UserError, "changed or damaged"):
            directory.read_metrics(self.run_dir)
        with self.assertWarnsRegex(UserWarning, "It is written anew"):
            progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertEqual(progress.history[0]["val_elbo"], -9.0)
        self.assertEqual(metrics.read_text(), rows)

    def test_arrays_that_would_fill_any_memory_are_not_unpacked(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        (path,) = (self.run_dir / "checkpoints").iterdir()
        with np.load(path) as file:
            arrays = dict(file)
        np.savez_compressed(path, **arrays | {"0": np.zeros(10**7)})
        with self.assertWarnsRegex(UserWarning, r"80,\d+,\d+ bytes of arrays"):
            with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
                checkpoints.restore(self.run_dir, self.vae)
