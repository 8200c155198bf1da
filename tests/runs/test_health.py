import pathlib
import warnings
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, random_bits, small_vae

import vae_tf
from vae_tf.runs import health

IMAGES = random_bits(24)
OPTIONS = {
    "eager": {"run_eagerly": True},
    "graph": {"jit_compile": False},
    "loop": {"jit_compile": True, "steps_per_execution": 4},
}


def batches(*bad):
    """Six batches of four images, of which those of some numbers hold NaN,
    which a dataset's first look does not see.
    """
    images = IMAGES.copy().reshape((6, 4, *IMAGE_SHAPE))
    images[list(bad), 0, 0] = np.nan
    return tf.data.Dataset.from_tensor_slices(images)


def compiled(**options):
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.01), **options)
    return vae


class Spoils(keras.callbacks.Callback):
    """A bias that is no number in some steps, and evaluations between them."""

    def __init__(self, bad, every):
        super().__init__()
        self.bad, self.every = bad, every

    def on_train_batch_begin(self, batch, logs=None):
        self.bias = self.model.decoder.trainable_variables[-1]
        self.kept = self.bias.numpy()
        if batch in self.bad:
            self.bias.assign(np.nan * self.kept)

    def on_train_batch_end(self, batch, logs=None):
        self.bias.assign(self.kept)
        if batch % self.every == self.every - 1:
            self.model.evaluate(IMAGES[:4], verbose=0)


class HealthTest(parameterized.TestCase, tf.test.TestCase):
    def fit(self, vae, data, **kwargs):
        """The lines that are said."""
        lines = []
        callback = vae_tf.Health(say=lines.append, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.history = vae.fit(
                data, shuffle=False, verbose=0, callbacks=[callback]
            ).history
        return lines, callback

    @parameterized.parameters(*OPTIONS)
    @pytest.mark.slow
    def test_a_healthy_training_is_as_it_was(self, run):
        ours, theirs = compiled(**OPTIONS[run]), compiled(**OPTIONS[run])
        lines, callback = self.fit(ours, batches())
        theirs = theirs.fit(batches(), verbose=0, shuffle=False)
        self.assertEqual((lines, callback.skipped), ([], 0))
        self.assertEqual(self.history, theirs.history)
        for one, other in zip(
            ours.get_weights(), theirs.model.get_weights(), strict=True
        ):
            self.assertAllEqual(one, other)

    @parameterized.parameters(*OPTIONS)
    def test_a_step_without_a_bound_is_left_out(self, run):
        directory = pathlib.Path(self.create_tempdir().full_path)
        data, vae = batches(2, 3), compiled(**OPTIONS[run])
        with self.assertRaisesRegex(vae_tf.UserError, "none of them a number"):
            # At the end of the epoch; training has gone on until then.
            self.fit(vae, data, directory=directory, batches_from=data.skip)
        self.assertEqual(int(vae.optimizer.iterations), 6)
        # Plain gradient descent by hand on the others, with the same noise.
        other = compiled(run_eagerly=True)
        for number, images in enumerate(batches(2, 3)):
            if number in (2, 3):
                other.optimizer.iterations.assign_add(1)
            else:
                other.train_step(images)
        for one, two in zip(vae.get_weights(), other.get_weights()):
            self.assertAllClose(one, two, 1e-5, 1e-6)
        with np.load(directory / "non_finite.npz") as file:
            found = file["image"]
        self.assertAllEqual(found, next(iter(batches(2, 3).skip(2))))

    def test_three_in_a_row_end_it(self):
        vae = compiled(**OPTIONS["graph"])
        with self.assertRaisesRegex(
            health.Diverged, r"another in step 3 .* whose E_q\[log p\(x\|z\)\]"
        ):
            self.fit(vae, batches(3, 4, 5))
        for weight in vae.get_weights():
            self.assertAllEqual(np.isfinite(weight), np.ones_like(weight))

    @parameterized.parameters(1, 2, 3)
    def test_an_evaluation_within_an_epoch_hides_nothing(self, every):
        def fit(bad):
            vae, callback = compiled(run_eagerly=True), vae_tf.Health()
            spoils = Spoils(bad, every)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                vae.fit(
                    IMAGES,
                    batch_size=4,
                    verbose=0,
                    callbacks=[callback, spoils],
                )
            return callback.skipped

        with mock.patch.object(health, "SECONDS", np.inf):
            self.assertEqual(fit((1, 3)), 2)
            with self.assertRaises(health.Diverged):
                fit((1, 2, 3))

    def test_a_row_ends_with_its_training(self):
        vae, callback = compiled(run_eagerly=True), vae_tf.Health()
        vae.non_finite.counts.assign([3, 3, 3, 3, 0, 1, 1])
        callback.set_model(vae)
        callback.on_train_begin()
        self.assertAllEqual(vae.non_finite.counts, np.zeros(7))

    def test_without_it_nothing_is_left_out(self):
        vae = compiled(**OPTIONS["graph"])
        self.fit(vae, batches())
        with self.assertWarnsRegex(UserWarning, "loss: expected a finite"):
            with self.assertRaises(vae_tf.UserError):
                vae.fit(batches(3), verbose=0, shuffle=False)

    def test_weights_that_are_no_numbers_end_it(self):
        # A rectifier may pass them on as 0, and the bound is a number.
        vae = compiled(run_eagerly=True)
        kernel = vae.encoder.trainable_variables[0]
        kernel.assign(np.full(kernel.shape, np.nan, np.float32))
        vae.train_step = lambda images: {"loss": 0.0}
        with self.assertRaisesRegex(health.Diverged, "weights: .*kernel"):
            self.fit(vae, batches())

    def end_epochs(self, *bounds, model=None):
        lines = []
        callback = vae_tf.Health(say=lines.append)
        callback.set_model(model or compiled())
        for bound in bounds:
            callback.on_epoch_end(0, {"val_elbo": bound})
        return lines

    def test_bounds_that_explode_or_only_fall_are_said_once(self):
        self.assertEqual(self.end_epochs(-8.0, -9.0, -8.5, *range(-8, 0)), [])
        (line,) = self.end_epochs(-8.0, *range(-9, -20, -1))
        self.assertRegex(line, r"val_elbo has fallen in 5 .* -8.00 to -13.00")
        # 12 pixels of 256 levels cost 67 nats when nothing is known of them.
        (line,) = self.end_epochs(-8.0, -700.0, -600.0, -900.0)
        self.assertIn("val_elbo: -700 nats per image is worse", line)

    @parameterized.parameters(
        (0.0671, None, "kl: 0.067 nats .* collapsed"),
        (0.0671, np.array([0.06, 0.007]), "kl: 0.067 nats .* collapsed"),
        (3.0, np.array([2.99, 0.009, 0.01]), "2 of 3 latent dimensions tell"),
        (3.0, np.array([2.0, 1.0]), None),
        (3.0, None, None),
    )
    def test_a_collapsed_posterior_is_said(self, kl, per_dimension, message):
        lines = []
        callback = vae_tf.Health(say=lines.append)
        for _ in range(2):
            callback.look_at_posterior(kl, per_dimension)
        self.assertLen(lines, message is not None)
        if message:
            self.assertRegex(lines[0], message)

    @parameterized.parameters(
        (-533.0, -543.4, 0), (-543.5, -543.4, 1), (0.1, 0.0, 0), (-0.1, 0.0, 1)
    )
    def test_nothing_learned_is_said(self, best, uniform, expected):
        lines = []
        callback = vae_tf.Health(say=lines.append)
        for _ in range(2):
            callback.look_at_best("val_elbo", best, uniform)
        self.assertLen(lines, expected)
        for line in lines:
            self.assertIn(f"val_elbo: {best:.2f} nats per image", line)
            self.assertIn(f"the {uniform:.2f} of a model", line)

    def test_a_disk_that_is_nearly_full(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        usage = health.shutil.disk_usage(directory)
        for free, expected in ((usage.free, 0), (10_000, 1)):
            lines = []
            callback = vae_tf.Health(directory, say=lines.append)
            callback.set_model(compiled())
            with mock.patch.object(
                health.shutil,
                "disk_usage",
                return_value=usage._replace(free=free),
            ):
                for _ in range(2):
                    callback.on_epoch_end(0, {})
            self.assertLen(lines, expected)


if __name__ == "__main__":
    tf.test.main()
