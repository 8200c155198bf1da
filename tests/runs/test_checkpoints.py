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
        history = checkpoints.restore(self.run_dir, other)
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
        self.assertLen(checkpoints.restore(self.run_dir, self.vae), 2)
        for content in (b"", b"PK"):
            files[0].write_bytes(content)
            with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
                checkpoints.restore(self.run_dir, self.vae)

    def test_refuses_a_run_that_has_lost_what_it_needs(self):
        recorder = self.recorder()
        for epoch in range(2):
            recorder.on_epoch_end(epoch, logs(-9.0 + epoch))
        (self.run_dir / directory.BEST_WEIGHTS).unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "best weights, received"):
            checkpoints.restore(self.run_dir, self.vae)
        for file in (self.run_dir / "checkpoints").iterdir():
            file.unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "none that is whole"):
            checkpoints.restore(self.run_dir, self.vae)

    def test_a_run_without_a_finished_epoch_begins_anew(self):
        before = self.vae.get_weights()
        self.assertEqual(checkpoints.restore(self.run_dir, self.vae), [])
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

    def test_refuses_missing_metrics(self):
        self.recorder().on_epoch_end(0, logs(-9.0))
        (self.run_dir / "metrics.csv").unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "the 1 epochs .*ved 0"):
            checkpoints.restore(self.run_dir, self.vae)
