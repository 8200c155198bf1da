import dataclasses
import json
import os
import pathlib
import shutil
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import small_vae

import vae_tf
from vae_tf import data, runs, sources
from vae_tf.config import read_run

CONFIG = dict(
    dataset="digits", epochs=2, hidden_units=(16, 8), jit_compile=False
)


class RunsTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.finished = pathlib.Path(cls.get_temp_dir_of_class()) / "run"
        os.chdir(cls.finished.parent)
        vae_tf.train(vae_tf.Config(run_dir=str(cls.finished), **CONFIG))

    @classmethod
    def get_temp_dir_of_class(cls):
        import tempfile

        path = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, path)
        cls.addClassCleanup(os.chdir, os.getcwd())
        return path

    def copy(self):
        """A finished run to damage."""
        path = pathlib.Path(self.create_tempdir().full_path) / "run"
        return pathlib.Path(shutil.copytree(self.finished, path))

    def test_load_gives_the_best_model(self):
        vae = vae_tf.load(self.finished)
        vae.compile()
        digits = vae_tf.load_data("digits")
        measured = vae.evaluate(digits.validation, verbose=0, return_dict=True)
        top = runs.best(runs.read_metrics(self.finished))
        self.assertAllClose(measured["elbo"], top["val_elbo"], 1e-5)

    def test_latest_points_to_the_newest_run(self):
        self.assertEqual(runs.LATEST.resolve(), self.finished.resolve())

    def test_config_says_what_ran_on_what(self):
        values = read_run(self.finished)
        self.assertEqual(values["latent_dim"], 2)
        self.assertEqual(values["binarization"], "dynamic")
        self.assertEqual(values["data"]["image_shape"], [8, 8, 1])
        self.assertEqual(values["data"]["splits"]["test"], 179)
        self.assertStartsWith(values["data"]["checksum"], "sha256:")
        self.assertEqual(values["versions"]["tensorflow"], tf.__version__)

    def test_evaluate_run(self):
        result = vae_tf.evaluate_run(self.finished, "test", 20, 50)
        path = self.finished / "evaluation-test.json"
        self.assertEqual(json.loads(path.read_text()), result)
        self.assertContainsSubset(
            {
                "dataset": "digits (scikit-learn)",
                "binarization": "dynamic",
                "dequantization": "none",
                "split": "test",
                "num_examples": 50,
                "likelihood": "bernoulli",
                "num_importance_samples": 20,
                "seed": 0,
                "units": "nats per example",
            }.items(),
            result.items(),
        )
        self.assertLess(result["elbo"], result["log_marginal_likelihood"])
        with np.load(path.with_suffix(".npz")) as file:
            for name in ("elbo", "log_marginal_likelihood"):
                self.assertEqual(file[name].shape, (50,))
                self.assertAllClose(file[name].mean(), result[name], 1e-12)

    def test_evaluate_run_refuses_other_data(self):
        run_dir = self.copy()
        values = json.loads((run_dir / "config.json").read_text())
        values["data"]["checksum"] = "sha256:0"
        (run_dir / "config.json").write_text(json.dumps(values))
        with self.assertRaisesRegex(vae_tf.UserError, "the data of the run"):
            vae_tf.evaluate_run(run_dir, "validation", 2)
        self.assertFalse((run_dir / "evaluation-validation.json").exists())

    def test_evaluate_run_refuses(self):
        for arguments, message in (
            ({"split": "dev"}, "--split: expected one of .* received 'dev'"),
            ({"num_examples": 0}, "--num_examples: expected .* received 0"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.evaluate_run(self.finished, **arguments)
        with (
            mock.patch.object(os, "access", return_value=False),
            self.assertRaisesRegex(vae_tf.UserError, "that can be written"),
        ):
            vae_tf.evaluate_run(self.finished)

    def test_a_streamed_dataset_trains_and_is_measured(self):
        digits = sources.load_source("digits", None)
        as_dataset = tf.data.Dataset.from_tensor_slices
        streamed = dataclasses.replace(
            digits,
            images={k: as_dataset(v) for k, v in digits.images.items()},
            labels={k: as_dataset(v) for k, v in digits.labels.items()},
        )
        run_dir = self.create_tempdir().full_path + "/run"
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        with mock.patch.object(data, "load_source", lambda *_: streamed):
            run = vae_tf.train(vae_tf.Config(run_dir=run_dir, **CONFIG))
            result = vae_tf.evaluate_run(run_dir, "validation", 20)
        self.assertLen(run.history, 2)
        self.assertEqual(result["num_examples"], 179)

    @parameterized.named_parameters(
        ("weights_missing", "best.weights.h5", None, "received none"),
        ("weights_damaged", "best.weights.h5", b"HDF", "a damaged file"),
        ("config_missing", "config.json", None, "--run_dir: expected a run"),
        ("config_damaged", "config.json", b"{", "a damaged file"),
    )
    def test_load_refuses(self, name, content, message):
        run_dir = self.copy()
        if content is None:
            (run_dir / name).unlink()
        else:
            (run_dir / name).write_bytes(content)
        with self.assertRaisesRegex(vae_tf.UserError, message):
            vae_tf.load(run_dir)

    def test_load_refuses_weights_of_another_model(self):
        run_dir = self.copy()
        small_vae().save_weights(run_dir / "best.weights.h5")
        with self.assertRaisesRegex(vae_tf.UserError, "best.weights.h5: "):
            vae_tf.load(run_dir)

    def test_load_of_a_keras_file(self):
        path = self.create_tempdir().full_path + "/vae.keras"
        with self.assertRaisesRegex(vae_tf.UserError, "received none"):
            vae_tf.load(path)
        keras.Sequential([keras.Input((1,))]).save(path)
        with self.assertRaisesRegex(vae_tf.UserError, "received a Sequential"):
            vae_tf.load(path)
        pathlib.Path(path).write_bytes(b"PK")
        with self.assertRaisesRegex(vae_tf.UserError, "a damaged file"):
            vae_tf.load(path)

    def test_metrics_survive_writing(self):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        self.assertEqual(runs.read_metrics(run_dir), [])
        history = [{"epoch": 1, "seconds": 0.25, "val_elbo": -1 / 3}]
        runs.write_metrics(run_dir, history)
        self.assertEqual(runs.read_metrics(run_dir), history)
        for text in ("epoch,elbo\n1,lots\n", "epoch,elbo\n1,2\n"):
            (run_dir / "metrics.csv").write_text(text)
            with self.assertRaisesRegex(vae_tf.UserError, "metrics.csv: exp"):
                runs.read_metrics(run_dir)

    def test_a_reader_sees_the_old_file_or_the_new_one(self):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        path = run_dir / "file.txt"
        path.write_text("old")
        with self.assertRaises(KeyboardInterrupt):
            with runs.written_atomically(path) as temporary:
                temporary.write_text("half")
                raise KeyboardInterrupt
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(os.listdir(run_dir), ["file.txt"])
        with runs.written_atomically(path) as temporary:
            temporary.write_text("new")
            self.assertEqual(path.read_text(), "old")
        self.assertEqual(path.read_text(), "new")

    def test_two_runs_of_one_second_have_their_own_directories(self):
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        config = vae_tf.Config(dataset="digits")
        made = {runs.create(config) for _ in range(3)}
        self.assertLen(made, 3)

    def test_the_link_to_the_newest_run_is_not_worth_a_failure(self):
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        pathlib.Path("runs").write_text("a file")
        with self.assertWarnsRegex(UserWarning, "does not point to a: "):
            runs.point_latest_to(pathlib.Path("a"))
        self.assertEqual(os.listdir("."), ["runs"])

    def test_the_link_s_name_is_no_name_for_a_run(self):
        config = vae_tf.Config(run_dir="runs/latest")
        with self.assertRaisesRegex(vae_tf.UserError, "a name of its own"):
            runs.create(config)

    def test_best_is_the_first_of_equals(self):
        history = [{"val_elbo": v, "epoch": e} for e, v in enumerate([1, 3, 3])]
        self.assertEqual(runs.best(history)["epoch"], 1)
        self.assertTrue(np.isfinite(runs.best(history)["val_elbo"]))
