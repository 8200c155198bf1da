import numpy as np
import pytest
import tensorflow as tf
from recording import RecordedRun, logs
from small import random_bits, small_vae

import vae_tf
from vae_tf.pictures import gallery, snapshots
from vae_tf.runs import callbacks, checkpoints, directory


class RunRecorderTest(RecordedRun):
    def test_weights_are_those_of_the_best_epoch(self):
        recorder = self.recorder()
        bias = self.vae.decoder.likelihood.bias
        for epoch, val_elbo in enumerate([-9.0, -5.0, -7.0]):
            bias.assign(tf.fill(bias.shape, float(epoch)))
            recorder.on_epoch_end(epoch, logs(val_elbo))
        self.vae.load_weights(self.run_dir / directory.BEST_WEIGHTS)
        self.assertAllEqual(bias, tf.fill(bias.shape, 1.0))
        epochs = [row["epoch"] for row in directory.read_metrics(self.run_dir)]
        self.assertEqual(epochs, [1, 2, 3])

    def test_stops_when_patience_is_over(self):
        recorder = self.recorder(early_stopping_patience=2)
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
        self.assertLen(directory.read_metrics(self.run_dir), 1)
        self.assertLen(list((self.run_dir / "checkpoints").iterdir()), 1)

    def test_seconds_go_on_after_a_pause(self):
        recorder = self.recorder()
        recorder.on_epoch_end(0, logs(-9.0))
        # Cut within the next epoch, whose steps have taken time, too.
        progress = checkpoints.Progress(recorder.history, seconds=300.0)
        self.recorder(progress=progress)._keep(7)
        progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertEqual(progress.step, 7)
        self.assertBetween(progress.seconds, 300.0, 360.0)
        recorder = self.recorder(progress=progress)
        recorder.on_epoch_end(1, logs(-8.0))
        self.assertBetween(recorder.history[-1]["seconds"], 300.0, 420.0)
        # A checkpoint of before, which does not say it.
        (path,) = (self.run_dir / "checkpoints").glob("*step*")
        with np.load(path) as arrays:
            rest = {k: v for k, v in arrays.items() if k != "seconds"}
        np.savez(path, **rest)
        path.rename(path.with_name("epoch-00001-step-000000008.npz"))
        for later in (self.run_dir / "checkpoints").glob("epoch-00002*"):
            later.unlink()
        progress = checkpoints.restore(self.run_dir, self.vae)
        self.assertEqual(progress.seconds, progress.history[-1]["seconds"])


class PicturesTest(RecordedRun):
    def look(self, epochs, history, every=2, **kwargs):
        held = snapshots.HeldOut(random_bits(40), np.arange(40) % 3)
        pictures = callbacks.Pictures(
            self.run_dir, held, every, history, **kwargs
        )
        pictures.set_model(self.vae)
        pictures.on_train_begin()
        for epoch in epochs:
            history.append({"epoch": epoch + 1, **logs(-9.0)})
            pictures.on_epoch_end(epoch)
        pictures.look_last()

    def epochs(self):
        return [s.epoch for s in gallery.recorded(self.run_dir)]

    def test_before_the_first_step_every_few_epochs_and_at_the_end(self):
        self.look(range(5), [])
        self.assertEqual(self.epochs(), [0, 2, 4, 5])
        names = {p.name for p in (self.run_dir / "figures").glob("*.png")}
        self.assertContainsSubset(
            {
                "posterior.png",
                "prior_predictive.png",
                "reconstructions.png",
                "training_curves.png",
            },
            names,
        )

    @pytest.mark.slow
    def test_a_resumed_run_goes_on_where_its_last_epoch_ended(self):
        self.look(range(4), history := [])
        # Killed in epoch 5, resumed after epoch 3.
        del history[3:]
        self.look(range(3, 5), history)
        self.assertEqual(self.epochs(), [0, 2, 4, 5])

    @pytest.mark.slow
    def test_leaves_training_as_it_was(self):
        images = random_bits(8)
        twin = small_vae()
        for vae in (self.vae, twin):
            vae.compile("adam", jit_compile=False)
            vae.fit(images, shuffle=False, verbose=0)
            if vae is self.vae:
                self.look(range(2), [])
            vae.fit(images, shuffle=False, verbose=0)
        for ours, theirs in zip(self.vae.get_weights(), twin.get_weights()):
            self.assertAllEqual(ours, theirs)

    def test_tensorboard_shows_metrics_and_pictures(self):
        board = callbacks.Board(self.run_dir / "tensorboard")
        board.on_epoch_end(0, {"elbo": -3.0, "val_elbo": -4.0})
        self.look(range(2), [], board=board)
        board.on_train_end()
        (path,) = (self.run_dir / "tensorboard").iterdir()
        found = {}
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
        self.assertAllClose(found["elbo/training", 1], -3.0)
        self.assertAllClose(found["elbo/validation", 1], -4.0)
        for step in (0, 2):
            self.assertIn(("KL of each dimension (nats)", step), found)
            self.assertIn(("knn_accuracy", step), found)
            width, height, content = found["posterior", step]
            image = tf.io.decode_png(content)
            self.assertEqual(image.shape, (int(height), int(width), 3))
