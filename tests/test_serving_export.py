import os
import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import random_bits, small_vae

import vae_tf
from vae_tf.serving import export as export_module


class ExportTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "vae"

    @parameterized.parameters(
        ("continuous_bernoulli", "iaf", "standard_normal", "conv"),
        ("normal", "full_covariance", "mixture", "mlp"),
        ("discretized_logistic", "mean_field", "vamp", "mlp"),
    )
    def test_every_family_passes_the_check(
        self, likelihood, posterior, prior, network
    ):
        # The check runs every signature in a v1 session of a fresh process and
        # compares with the model in memory.
        body = {"network": network, "hidden_units": (6,)}
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, posterior, **body),
            vae_tf.Decoder((4, 3, 1), likelihood, **body),
            prior=prior,
        )
        self.assertTrue(vae_tf.export(vae, self.directory).is_dir())

    def test_runs_in_a_session_of_a_process_without_the_package(self):
        vae = small_vae()
        # Weights in sequence: no two alike, so that none can be swapped.
        start = 0
        for variable in vae.trainable_variables:
            values = np.arange(start, start + np.prod(variable.shape))
            variable.assign(np.sin(values).reshape(variable.shape))
            start += values.size
        path = vae_tf.export(vae, self.directory)
        self.assertEqual(path, self.directory / "1")
        for rows in (1, 2, 5):
            z = np.random.default_rng(rows).standard_normal((rows, 2))
            np.save(self.directory / "z.npy", z.astype(np.float32))
            code = (
                "import sys, numpy as np, tensorflow.compat.v1 as tf\n"
                "with tf.Session(graph=tf.Graph()) as session:\n"
                "    meta = tf.saved_model.loader.load(\n"
                "        session, ['serve'], sys.argv[1])\n"
                "    one = meta.signature_def['serving_default']\n"
                "    image = session.run(one.outputs['image'].name,\n"
                "        {one.inputs['z'].name: np.load(sys.argv[2])})\n"
                "assert 'vae_tf' not in sys.modules\n"
                "np.save(sys.argv[3], image)\n"
            )
            out = self.directory / "image.npy"
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    code,
                    path,
                    self.directory / "z.npy",
                    out,
                ],
                check=True,
                capture_output=True,
                cwd=self.directory,
            )
            expected = vae.decoder(z.astype(np.float32)).mean()
            self.assertAllClose(np.load(out), expected, 1e-5, 1e-5)

    def test_holds_the_contract_and_each_weight_once(self):
        vae = small_vae()
        path = vae_tf.export(vae, self.directory)
        loaded = tf.saved_model.load(str(path))
        self.assertEqual(
            set(loaded.signatures),
            {"decode", "encode", "sample", "serving_default"},
        )
        images = random_bits(3)
        encoded = loaded.signatures["encode"](image=tf.constant(images))
        self.assertAllClose(encoded["mean"], vae.encoder(images).mean())
        stored = tf.train.list_variables(str(path / "variables/variables"))
        sizes = [np.prod(shape) for name, shape in stored if "used" in name]
        self.assertEqual(sum(sizes), vae.count_params())

    def test_versions_count_up_and_are_never_overwritten(self):
        vae = small_vae()
        self.assertEqual(vae_tf.export(vae, self.directory).name, "1")
        self.assertEqual(vae_tf.export(vae, self.directory, 7).name, "7")
        self.assertEqual(vae_tf.export(vae, self.directory).name, "8")
        before = (self.directory / "7/saved_model.pb").read_bytes()
        with self.assertRaisesRegex(
            vae_tf.UserError, "--version: expected one .* received 7"
        ):
            vae_tf.export(vae, self.directory, 7)
        after = (self.directory / "7/saved_model.pb").read_bytes()
        self.assertEqual(before, after)

    def test_refuses_what_is_no_version(self):
        for version in (0, "5", True):
            with self.assertRaisesRegex(
                vae_tf.UserError, "--version: expected"
            ):
                vae_tf.export(small_vae(), self.directory, version)
        self.assertFalse(self.directory.exists())

    def test_a_bundle_that_fails_its_check_is_not_published(self):
        save = export_module._save

        def save_another(functions, path):
            broken = functions["decode"][0]
            functions = functions | {
                "decode": (
                    lambda z: {"image": 1.1 * broken(z)["image"]},
                    functions["decode"][1],
                )
            }
            save(functions, path)

        with (
            mock.patch.object(export_module, "_save", save_another),
            self.assertRaisesRegex(RuntimeError, "(?s)not published.*decode/1"),
        ):
            vae_tf.export(small_vae(), self.directory)
        self.assertEmpty(os.listdir(self.directory))

    def test_an_interrupted_export_leaves_no_version(self):
        with (
            mock.patch.object(
                export_module, "_check", side_effect=KeyboardInterrupt
            ),
            self.assertRaises(KeyboardInterrupt),
        ):
            vae_tf.export(small_vae(), self.directory)
        self.assertEmpty([p for p in os.listdir(self.directory) if p.isdigit()])

    def test_refuses_a_directory_that_cannot_be_written(self):
        self.directory.write_text("a file")
        with self.assertRaisesRegex(vae_tf.UserError, "--export_dir: expected"):
            vae_tf.export(small_vae(), self.directory)
