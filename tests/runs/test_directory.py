import dataclasses
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from finished import FinishedRun
from small import small_vae

import vae_tf
from vae_tf.config import read_run
from vae_tf.runs import directory, sums
from vae_tf.runs.building import load_data_of


class OwnArraysTest(tf.test.TestCase):
    """A run of an .npz."""

    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "my.npz"
        self.images = np.random.default_rng(0).integers(0, 2, (40, 4, 4))
        np.savez(self.path, images=self.images, labels=np.arange(40) % 3)

    def test_data_is_found_again_until_it_changes(self):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        config = vae_tf.Config(dataset=self.path)
        data = load_data_of(config)
        config = dataclasses.replace(config, dataset=data.source.name)
        directory.write_config(run_dir, config, data)
        self.assertEqual(read_run(run_dir)["dataset"], str(self.path))
        again = directory.load_data_of_run(run_dir)
        self.assertAllEqual(again.labels("test"), data.labels("test"))
        self.assertEqual(again.describe(), data.describe())
        self.images[0] = 1 - self.images[0]
        np.savez(self.path, images=self.images)
        with self.assertRaisesRegex(
            vae_tf.UserError, "the data of the run, npz my with sha256:.* rec"
        ):
            directory.load_data_of_run(run_dir)
        self.path.unlink()
        with self.assertRaisesRegex(vae_tf.UserError, "my.npz' .no such path"):
            directory.load_data_of_run(run_dir)


class RunsTest(parameterized.TestCase, FinishedRun):
    def test_load_gives_the_best_model(self):
        vae = vae_tf.load(self.finished)
        vae.compile()
        digits = vae_tf.load_data("digits")
        measured = vae.evaluate(digits.validation, verbose=0, return_dict=True)
        top = directory.best(directory.read_metrics(self.finished))
        self.assertAllClose(measured["elbo"], top["val_elbo"], 1e-5)

    def test_latest_points_to_the_newest_run(self):
        self.assertEqual(directory.LATEST.resolve(), self.finished.resolve())

    def test_config_says_what_ran_on_what(self):
        values = read_run(self.finished)
        self.assertEqual(values["latent_dim"], 2)
        self.assertEqual(values["binarization"], "dynamic")
        self.assertEqual(values["data"]["image_shape"], [8, 8, 1])
        self.assertEqual(values["data"]["splits"]["test"], 179)
        self.assertStartsWith(values["data"]["checksum"], "sha256:")
        self.assertEqual(values["versions"]["tensorflow"], tf.__version__)

    @parameterized.named_parameters(
        ("weights_missing", "best.weights.h5", None, "received none"),
        ("weights_changed", "best.weights.h5", b"HDF", "damaged since"),
        ("config_changed", "config.json", b"{", "damaged since"),
        ("config_missing", "config.json", None, "--run_dir: expected a run"),
        # Taken as they are, and no better for it.
        ("weights_damaged", "best.weights.h5", b"HDF", "a damaged file", True),
        ("config_damaged", "config.json", b"{", "a damaged file", True),
    )
    def test_load_refuses(self, name, content, message, accepted=False):
        run_dir = self.copy()
        if accepted:
            (run_dir / sums.SUMS).unlink()
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
        self.assertEqual(directory.read_metrics(run_dir), [])
        history = [{"epoch": 1, "seconds": 0.25, "val_elbo": -1 / 3}]
        directory.write_metrics(run_dir, history)
        self.assertEqual(directory.read_metrics(run_dir), history)
        for text in ("epoch,elbo\n1,lots\n", "epoch,elbo\n1,2\n"):
            (run_dir / "metrics.csv").write_text(text)
            with self.assertRaisesRegex(vae_tf.UserError, "metrics.csv: exp"):
                directory.read_metrics(run_dir)

    def test_two_runs_of_one_second_have_their_own_directories(self):
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        config = vae_tf.Config(dataset="digits")
        made = {directory.create(config) for _ in range(3)}
        self.assertLen(made, 3)

    @parameterized.parameters(
        ("/data/my.npz", "my"),
        ("/data/My.v2.NPZ", "My.v2"),
        ("/data/crops.v2", "crops.v2"),
        ("mnist/3.0.1", "mnist-3.0.1"),
        ("mnist_corrupted/identity:1.0.0", "mnist_corrupted-identity-1.0.0"),
    )
    def test_a_fresh_run_is_named_after_its_data(self, dataset, name):
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        run_dir = directory.create(vae_tf.Config(dataset=dataset))
        self.assertRegex(str(run_dir), rf"^runs/{name}-\d{{8}}-\d{{6}}$")
        self.assertLen(list(pathlib.Path("runs").iterdir()), 1)

    def test_the_link_to_the_newest_run_is_not_worth_a_failure(self):
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        pathlib.Path("runs").write_text("a file")
        with self.assertWarnsRegex(UserWarning, "does not point to a: "):
            directory.point_latest_to(pathlib.Path("a"))
        self.assertEqual(os.listdir("."), ["runs"])

    def test_the_link_s_name_is_no_name_for_a_run(self):
        config = vae_tf.Config(run_dir="runs/latest")
        with self.assertRaisesRegex(vae_tf.UserError, "a name of its own"):
            directory.create(config)

    def test_best_is_the_first_of_equals(self):
        history = [{"val_elbo": v, "epoch": e} for e, v in enumerate([1, 3, 3])]
        self.assertEqual(directory.best(history)["epoch"], 1)
        self.assertTrue(np.isfinite(directory.best(history)["val_elbo"]))
