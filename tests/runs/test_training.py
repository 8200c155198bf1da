import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import unittest
import uuid
import warnings
from unittest import mock

import keras
import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.pictures import gallery
from vae_tf.runs import building, callbacks, checkpoints, directory, training
from vae_tf.runs.lock import only_writer

# Compiling a small step with XLA takes longer than running it.
CONFIG = vae_tf.Config(
    dataset="digits",
    epochs=3,
    batch_size=128,
    hidden_units=(16, 8),
    jit_compile=False,
    figures_every=0,
    tensorboard=False,
)


class Killed(BaseException):
    """Stands for a SIGKILL: nobody catches it."""


class TrainingTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, path)
        # The run of CONFIG, which many tests compare with and none changes.
        cls.whole = vae_tf.train(
            dataclasses.replace(CONFIG, run_dir=str(path / "whole"))
        )

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.create_tempdir().full_path)

    def train(self, **changes):
        return vae_tf.train(dataclasses.replace(CONFIG, **changes))

    def rows(self, run_dir):
        """metrics.csv without the one column that may differ."""
        rows = directory.read_metrics(pathlib.Path(run_dir))
        return [
            {k: v for k, v in row.items() if k != "seconds"} for row in rows
        ]

    @pytest.mark.slow
    def test_mixed_precision_hardly_moves_the_elbo(self):
        self.assert_mixed_precision_hardly_moves_the_elbo("mlp")

    @pytest.mark.slow
    def test_mixed_precision_of_convolutions_hardly_moves_the_elbo(self):
        self.assert_mixed_precision_hardly_moves_the_elbo("conv")

    def assert_mixed_precision_hardly_moves_the_elbo(self, network):
        run = self.train(
            network=network, hidden_units=(32, 16), mixed_precision=True
        )
        data = building.load_data_of(CONFIG)
        exact = directory.load(run.run_dir)
        for vae, dtype in ((run.vae, "bfloat16"), (exact, "float32")):
            bodies = vae.encoder.network, vae.decoder.network
            for layer in (*bodies, vae.decoder.likelihood.linear):
                for part in layer._flatten_layers():
                    self.assertEqual(part.compute_dtype, dtype)
            self.assertAllEqual({w.dtype for w in vae.weights}, {"float32"})
        images = next(iter(data.validation))
        rounded, unrounded = (
            tf.reduce_mean(vae.elbo(images, seed=0, num_samples=8))
            for vae in (run.vae, exact)
        )
        self.assertBetween(abs(rounded - unrounded), 1e-6, 0.1)  # nats

    def test_writes_a_run_directory(self):
        run = self.whole
        written = os.listdir(run.run_dir)
        self.assertContainsSubset(
            ["best.weights.h5", "checkpoints", "config.json", "metrics.csv"],
            written,
        )
        hidden = [name for name in written if name.startswith(".")]
        self.assertEqual(hidden, [".lock"])
        self.assertLen(run.history, 3)
        self.assertEqual(
            list(run.history[0]),
            [
                "epoch",
                "step",
                "seconds",
                "elbo",
                "reconstruction",
                "kl",
                "val_elbo",
                "val_reconstruction",
                "val_kl",
            ],
        )
        for row in run.history:
            self.assertAllClose(
                row["elbo"], row["reconstruction"] - row["kl"], 1e-5
            )
        self.assertGreater(
            run.history[-1]["val_elbo"], run.history[0]["val_elbo"]
        )
        self.assertEqual(run.history[-1]["step"], 3 * 12)

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_metrics(self):
        self.train(run_dir="same")
        self.train(run_dir="other", seed=1)
        self.assertEqual(self.rows("same"), self.rows(self.whole.run_dir))
        self.assertNotEqual(self.rows("other"), self.rows(self.whole.run_dir))

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_metrics_by_xla(self):
        for name in ("a", "b"):
            self.train(run_dir=name, epochs=2, jit_compile=None)
        self.assertEqual(self.rows("a"), self.rows("b"))

    def test_a_resumed_run_ends_like_an_uninterrupted_one(self):
        # Killed between the files of an epoch.
        self.assert_ends_like_an_uninterrupted_one(callbacks, "best")

    @parameterized.named_parameters(
        ("before_the_checkpoint", checkpoints, "write"),
        ("before_the_metrics", callbacks, "write_metrics"),
        # More steps than one execution takes, and not a multiple of it.
        ("many_steps", checkpoints, "write", 16),
        (
            "iaf_mixture_alternate",
            checkpoints,
            "write",
            256,
            {
                "posterior": "iaf",
                "flow_units": (6,),
                "prior": "mixture",
                "num_components": 3,
                "train_variables": "alternate",
                "kl_warmup_epochs": 2,
            },
        ),
        (
            "vamp_iwae",
            checkpoints,
            "write",
            256,
            {"prior": "vamp", "num_components": 5, "objective": "iwae"},
        ),
        (
            "mean_field_inference",
            checkpoints,
            "write",
            256,
            {"inference": "mean_field"},
        ),
    )
    @pytest.mark.slow
    def test_another_resumed_run_ends_like_an_uninterrupted_one(
        self, *settings
    ):
        self.assert_ends_like_an_uninterrupted_one(*settings)

    def assert_ends_like_an_uninterrupted_one(
        self, module, killed_in, batch_size=128, changes=None
    ):
        changes = (changes or {}) | {"batch_size": batch_size}
        if changes == {"batch_size": CONFIG.batch_size}:
            whole = self.whole
        else:
            whole = self.train(run_dir="whole", **changes)
        steps = -(-1439 // batch_size)
        steps *= 1 + (whole.vae.train_variables == "alternate")
        self.assertEqual(whole.history[-1]["step"], 3 * steps)
        with self.killed_in(module, killed_in, 2):
            self.train(run_dir="cut", **changes)
        resumed = self.train(run_dir="cut", resume=True, **changes)
        self.assert_same_run(resumed, whole)

    @pytest.mark.slow
    def test_a_run_killed_within_an_epoch_ends_like_an_uninterrupted_one(self):
        self.assert_killed_within_an_epoch_ends_like_it(ema_momentum=0.0)

    @pytest.mark.slow
    def test_an_averaged_one_killed_within_an_epoch_ends_like_it(self):
        self.assert_killed_within_an_epoch_ends_like_it(ema_momentum=0.9)

    def assert_killed_within_an_epoch_ends_like_it(self, ema_momentum):
        options = {"epochs": 2, "batch_size": 16, "figures_every": 1}
        options["ema_momentum"] = ema_momentum
        whole = self.train(run_dir="whole", **options)
        # 90 steps of an epoch, 32 at a time; states after 32, 64 and all of the
        # first one, after 32 of the second; killed before the next.
        often = options | {"checkpoint_minutes": 1e-9}
        with self.killed_in(checkpoints, "write", 5):
            self.train(run_dir="cut", **often)
        names = os.listdir("cut/checkpoints")
        self.assertIn("epoch-00001-step-000000032.npz", names)
        # And once more, before the best weights are written.
        with self.killed_in(callbacks, "save_best", 1):
            self.train(run_dir="cut", resume=True, **options)
        resumed = self.train(run_dir="cut", resume=True, **options)
        self.assert_same_run(resumed, whole)

    @pytest.mark.slow
    def test_a_run_that_is_asked_to_end_says_how_to_go_on(self):
        options = {"epochs": 2, "batch_size": 16}
        whole = self.train(run_dir="whole", **options)
        calls = []

        def ask(recorder, batch, logs=None):
            calls.append(batch)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
            return original(recorder, batch, logs)

        original = callbacks.RunRecorder.on_train_batch_end
        with (
            mock.patch.object(callbacks.RunRecorder, "on_train_batch_end", ask),
            mock.patch.object(sys, "argv", ["train.py"]),
            self.assertRaisesRegex(
                KeyboardInterrupt,
                "Interrupted after 1 epoch and 64 steps of the next one, .* "
                "To go on: .*python train.py --run_dir cut --resume",
            ) as caught,
        ):
            self.train(run_dir="cut", **options)
        self.assertEqual(caught.exception.exit_code, 128 + signal.SIGTERM)
        resumed = self.train(run_dir="cut", resume=True, **options)
        self.assert_same_run(resumed, whole)

    @pytest.mark.slow
    def test_the_images_of_a_step_without_a_bound_are_those_of_the_epoch(self):
        made = []
        original = training.Health

        def health(run_dir, batches_from, say):
            made.append((batches_from, original(run_dir, batches_from, say)))
            return made[-1][1]

        seen = []
        step = vae_tf.VAE.train_step

        def train_step(vae, images):
            seen.append(images.numpy())
            return step(vae, images)

        with (
            mock.patch.object(training, "Health", health),
            mock.patch.object(vae_tf.VAE, "train_step", train_step),
            mock.patch.object(
                vae_tf.VAE,
                "run_eagerly",
                property(lambda _: True, lambda *_: 0),
            ),
        ):
            found = []
            end = callbacks.RunRecorder.on_epoch_end

            def on_epoch_end(recorder, epoch, logs=None):
                (images,) = made[0][0](3).take(1)
                found.append(images.numpy())
                end(recorder, epoch, logs)

            with mock.patch.object(
                callbacks.RunRecorder, "on_epoch_end", on_epoch_end
            ):
                self.train(run_dir="a", epochs=2)
        for epoch in range(2):
            self.assertAllEqual(found[epoch], seen[12 * epoch + 3])

    @pytest.mark.slow
    def test_a_snapshot_that_a_killed_run_left_out_is_made_up_for(self):
        whole = self.train(run_dir="whole", figures_every=1)
        with self.killed_in(gallery, "record", 3):  # of epoch 2
            self.train(run_dir="cut", figures_every=1)
        resumed = self.train(run_dir="cut", resume=True, figures_every=1)
        self.assert_same_run(resumed, whole)

    @contextlib.contextmanager
    def killed_in(self, module, name, call):
        """A kill at the so many-th call of a function."""
        calls = []

        def kill(*args):
            calls.append(args)
            if len(calls) == call:
                raise Killed
            return original(*args)

        original = getattr(module, name)
        with (
            mock.patch.object(module, name, kill),
            self.assertRaises(Killed),
        ):
            yield

    def assert_same_run(self, ours, theirs):
        self.assertEqual(self.rows(ours.run_dir), self.rows(theirs.run_dir))
        for one, other in zip(
            ours.vae.get_weights(), theirs.vae.get_weights(), strict=True
        ):
            self.assertAllEqual(one, other)
        for path in theirs.run_dir.glob("figures/*.gif"):
            again = ours.run_dir / "figures" / path.name
            self.assertEqual(again.read_bytes(), path.read_bytes())

    @pytest.mark.slow
    def test_a_run_ended_before_it_had_begun_begins_without_resume(self):
        self.assert_begins(resume=False)

    def test_a_run_ended_before_it_had_begun_begins(self):
        self.assert_begins(resume=True)
        with self.assertRaisesRegex(vae_tf.UserError, "expected a run dir"):
            os.mkdir("another")
            self.train(run_dir="another", resume=True)

    def assert_begins(self, resume):
        # With no config.json yet.
        run_dir = pathlib.Path("cut")
        (run_dir / "checkpoints").mkdir(parents=True)
        (run_dir / ".lock").write_text("")
        (run_dir / f".{uuid.uuid4().hex}-config.json").write_text("{")
        self.train(run_dir="cut", resume=resume, epochs=1)

    def test_one_process_writes_a_run(self):
        with only_writer(self.whole.run_dir):
            with self.assertRaisesRegex(vae_tf.UserError, "written by process"):
                self.train(run_dir=str(self.whole.run_dir), resume=True)

    @pytest.mark.slow
    def test_a_run_killed_in_its_first_epoch_is_resumed(self):
        with (
            mock.patch.object(callbacks, "write_metrics", side_effect=Killed),
            self.assertRaises(Killed),
        ):
            self.train(run_dir="cut")
        self.train(run_dir="cut", resume=True)
        self.assertEqual(self.rows("cut"), self.rows(self.whole.run_dir))

    @pytest.mark.slow
    def test_a_longer_resumed_run_says_what_becomes_of_its_step_size(self):
        self.train(run_dir="cut", epochs=1)
        with self.assertWarnsRegex(UserWarning, "2 stretches the cosine"):
            self.train(run_dir="cut", epochs=2, resume=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*stretches")
            self.train(run_dir="cut", epochs=2, resume=True)

    @pytest.mark.slow
    def test_a_finished_run_is_extended(self):
        # Neither of which depends on the number of epochs.
        constant = {"lr_schedule": "constant", "kl_warmup_epochs": 0}
        self.train(run_dir="whole", epochs=4, **constant)
        self.train(run_dir="cut", epochs=2, **constant)
        self.train(run_dir="cut", epochs=4, resume=True, **constant)
        self.assertEqual(self.rows("cut"), self.rows("whole"))
        self.assertEqual(vae_tf.Config.load("cut").epochs, 4)
        with self.assertRaisesRegex(vae_tf.UserError, "the 4 epochs .* 3"):
            self.train(run_dir="cut", epochs=3, resume=True, **constant)

    @pytest.mark.slow
    def test_early_stopping_also_stops_a_resumed_run(self):
        options = {
            "early_stopping_patience": 1,
            "epochs": 30,
            "learning_rate": 0.3,
            "lr_schedule": "constant",
        }
        run = self.train(run_dir="a", **options)
        self.assertLess(len(run.history), 30)
        top = directory.best(run.history)
        self.assertEqual(run.history[-1]["epoch"], top["epoch"] + 1)
        again = self.train(run_dir="a", resume=True, **options)
        self.assertEqual(again.history, run.history)

    @parameterized.parameters(
        # 64 pixels of two values, or of density 1 however they are made.
        ({}, -44.361419),
        ({"likelihood": "normal"}, 0.0),
        ({"likelihood": "normal", "dequantization": "none"}, 0.0),
    )
    def test_is_held_against_uniform_pixels(self, changes, uniform):
        with mock.patch.object(training.Health, "look_at_best") as looked:
            run = self.train(run_dir="a", epochs=1, **changes)
        name, best, against = looked.call_args.args
        self.assertEqual((name, best), ("val_elbo", run.history[0]["val_elbo"]))
        self.assertAllClose(against, uniform)

    def test_says_what_comes_next(self):
        with (
            mock.patch("builtins.print") as printed,
            mock.patch.object(sys, "argv", ["train.py"]),
        ):
            self.train(run_dir="a", epochs=1)
        line = printed.call_args.args[0]
        self.assertRegex(
            line, r"Best validation ELBO -\d+\.\d\d nats .* in a\."
        )
        self.assertIn("python evaluate.py --run_dir a", line)
        self.assertIn("python export.py --run_dir a", line)

    def test_a_fresh_directory_is_the_default(self):
        run = self.train(epochs=1)
        self.assertStartsWith(str(run.run_dir), "runs/digits-")
        self.assertEqual(directory.LATEST.resolve(), run.run_dir.resolve())

    @parameterized.named_parameters(
        ("latent_dim", {"latent_dim": 5}, "--latent_dim: expected 2, .* 5"),
        (
            "network",
            {"hidden_units": (4,)},
            r"--hidden_units: expected \(16, 8",
        ),
        ("seed", {"seed": 7}, "--seed: expected 0, .* received 7"),
    )
    def test_resume_refuses_a_changed_model(self, change, message):
        run_dir = str(self.whole.run_dir)
        before = self.rows(run_dir)
        with self.assertRaisesRegex(vae_tf.UserError, message):
            self.train(run_dir=run_dir, resume=True, **change)
        self.assertEqual(self.rows(run_dir), before)

    @pytest.mark.slow
    def test_a_diverged_run_says_so(self):
        with self.assertRaisesRegex(
            vae_tf.UserError,
            r"--learning_rate: .* received 1e\+30, down to 1.25e\+29 .* bound",
        ):
            self.train(run_dir="a", learning_rate=1e30)
        self.assertFalse(os.path.exists("a/best.weights.h5"))

    def test_refuses_a_run_directory_in_use(self):
        os.mkdir("a")
        pathlib.Path("a/precious").write_text("keep")
        with self.assertRaisesRegex(
            vae_tf.UserError, "--run_dir: expected a new or .* 'a' .*'precious'"
        ):
            self.train(run_dir="a")
        self.assertEqual(os.listdir("a"), ["precious"])

    def test_refuses_a_run_directory_that_cannot_be_made(self):
        pathlib.Path("file").write_text("")
        with self.assertRaisesRegex(vae_tf.UserError, "can be written.*file/a"):
            self.train(run_dir="file/a")

    def test_resume_refuses_what_is_not_a_run(self):
        for run_dir, message in (
            (None, "--resume: expected --run_dir"),
            ("missing", "--run_dir: expected a run .* 'missing'"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                self.train(run_dir=run_dir, resume=True)
        self.assertEqual(os.listdir("."), [])

    def test_schedules(self):
        for schedule, end in (
            ("constant", 1.0),
            ("cosine", 0.0),
            ("exponential", 0.01),
        ):
            config = dataclasses.replace(
                CONFIG, lr_schedule=schedule, learning_rate=0.5, epochs=40
            )
            optimizer = training._optimizer(config, 400)
            start = 0.0 if schedule == "cosine" else 0.5  # It warms up.
            self.assertAllClose(optimizer.learning_rate, start)
            optimizer.build([keras.Variable(1.0)])
            optimizer.iterations.assign(400)  # 40 epochs of 10 steps
            self.assertAllClose(optimizer.learning_rate, 0.5 * end, 1e-5)


@pytest.mark.slow
@unittest.skipUnless(
    os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist")),
    "needs TFDS_DATA_DIR with mnist and binarized_mnist prepared",
)
class RealDataTest(tf.test.TestCase):
    """The two results that README shows, on the test split."""

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.create_tempdir().full_path)

    def test_two_dimensional_mnist(self):
        run = vae_tf.train(vae_tf.Config(latent_dim=2))
        result = vae_tf.evaluate_run(run.run_dir, num_importance_samples=100)
        self.assertGreater(result["elbo"], -137)

    def test_static_mnist(self):
        config = vae_tf.Config(
            dataset="binarized_mnist", latent_dim=40, epochs=60
        )
        run = vae_tf.train(config)
        result = vae_tf.evaluate_run(run.run_dir)
        self.assertEqual(result["num_importance_samples"], 1000)
        self.assertGreater(result["log_marginal_likelihood"], -93.5)
