import base64
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from finished import FinishedRun
from PIL import Image
from small import combined, random_bits, small_vae

import vae_tf
from vae_tf.runs.directory import load_data_of_run
from vae_tf.serving import check, versions
from vae_tf.serving import export as export_module

SIGNATURES = {
    "decode",
    "serving_default",
    "decode_sample",
    "sample",
    "sample_png",
    "encode",
    "encode_sample",
    "reconstruct",
    "score",
    "explain",
    "encode_finite",
    "reconstruct_finite",
    "score_finite",
    "encode_bytes",
    "score_bytes",
}


def manifest_of(bundle):
    return json.loads((bundle / check.MANIFEST).read_text())


class ExportTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "vae"

    @pytest.mark.slow
    def test_families_pass_the_check(self):
        self.assert_families_pass(
            "continuous_bernoulli", "iaf", "standard_normal", "conv"
        )

    @pytest.mark.slow
    def test_others_pass_the_check(self):
        self.assert_families_pass("normal", "full_covariance", "mixture", "mlp")

    def assert_families_pass(self, *families):
        self.assert_pass_the_check(*families)

    @parameterized.parameters(
        ("bernoulli", "iaf", "mixture", "mlp"),
        ("discretized_logistic", "mean_field", "vamp", "mlp"),
        ("bernoulli", "full_covariance", "vamp", "conv"),
    )
    @pytest.mark.slow
    def test_every_other_family_passes_the_check(self, *families):
        self.assert_pass_the_check(*families)

    def assert_pass_the_check(self, likelihood, posterior, prior, network):
        # The check scans every signature, runs it through the C library in a
        # fresh process, and compares with the model in memory: z to the bit.
        vae = combined(likelihood, posterior, prior, network=network)
        path = vae_tf.export(vae, self.directory)
        content = manifest_of(path)
        self.assertEqual(set(content["signatures"]), SIGNATURES)
        self.assertEqual(
            [content[name] for name in ("likelihood", "posterior", "prior")],
            [likelihood, posterior, prior],
        )

    # The check starts a process, and is not what this is about.
    @mock.patch.object(export_module, "_check", mock.Mock())
    def test_versions_count_up_and_old_ones_go(self):
        vae = small_vae()
        for expected in ("1", "2", "3"):
            path = vae_tf.export(vae, self.directory, keep=2)
            self.assertEqual(path.name, expected)
        self.assertEqual(list(versions.published(self.directory)), [2, 3])
        self.assertEqual(vae_tf.export(vae, self.directory, 7).name, "7")
        self.assertEqual(list(versions.published(self.directory)), [2, 3, 7])

    @mock.patch.object(export_module, "_check", mock.Mock())
    def test_keep_passes_over_what_is_no_version(self):
        for name in ("007", "8"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "5").write_text("a file")
        with self.assertWarnsRegex(UserWarning, r"no version: 5 \(no dir"):
            path = vae_tf.export(small_vae(), self.directory, keep=1)
        self.assertEqual(path.name, "9")
        self.assertSameElements(os.listdir(self.directory), ["5", "9"])

    def test_refuses_arguments_before_any_work(self):
        vae = small_vae()
        for name, values in (
            ("version", (0, "5", True)),
            ("num_importance_samples", (0, 1.5, "64")),
            ("keep", (0, -1, True)),
        ):
            for value in values:
                with self.assertRaisesRegex(
                    vae_tf.UserError, f"--{name}: expected an integer >= 1"
                ):
                    vae_tf.export(vae, self.directory, **{name: value})
        for other in (None, vae.decoder, "runs/latest"):
            with self.assertRaisesRegex(
                vae_tf.UserError,
                f"^vae: expected a VAE, received a {type(other).__name__}",
            ):
                vae_tf.export(other, self.directory)
        for other in ("", "s3://bucket/x", pathlib.Path("s3://bucket/x")):
            with self.assertRaisesRegex(vae_tf.UserError, "^--export_dir: exp"):
                vae_tf.export(vae, other)
        self.assertFalse(self.directory.exists())

    @pytest.mark.slow
    def test_a_bundle_that_fails_its_check_is_not_published(self):
        traced = export_module._traced

        def trace_another(functions):
            function, specs = functions["decode"]
            another = tf.function(
                lambda z: {"image": 1.1 * function(z)["image"]}, specs
            )
            return traced(functions | {"decode": (another, specs)})

        with (
            mock.patch.object(export_module, "_traced", trace_another),
            self.assertRaisesRegex(RuntimeError, "(?s)not published.*decode/"),
        ):
            vae_tf.export(small_vae(), self.directory)
        self.assertEmpty(os.listdir(self.directory))

    @pytest.mark.slow
    def test_a_version_appears_whole(self):
        # Whenever an export is killed, its directory is what it was at the
        # call before: without a number until the one rename, and then whole
        # and on disk.
        rename, fsync, synced, seen = os.rename, os.fsync, set(), []

        def watched_rename(source, target):
            self.assertEqual(list(versions.published(self.directory)), [])
            check.check_checksums(pathlib.Path(source))
            files = {p.stat().st_ino for p in pathlib.Path(source).rglob("*")}
            self.assertContainsSubset(files, synced)
            seen.append(pathlib.Path(target).name)
            rename(source, target)

        def watched_fsync(descriptor):
            synced.add(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        def watched(name):
            function = getattr(export_module, name)

            def stage(*arguments):
                function(*arguments)
                self.assertEqual(list(versions.published(self.directory)), [])
                seen.append(name)

            return mock.patch.object(export_module, name, stage)

        with (
            mock.patch.object(os, "rename", watched_rename),
            mock.patch.object(os, "fsync", watched_fsync),
            watched("_save"),
            watched("_check"),
        ):
            vae_tf.export(small_vae(), self.directory)
        self.assertEqual(seen, ["_save", "_check", "1"])

    @pytest.mark.slow
    def test_a_full_disk_leaves_no_version(self):
        # A process that may write no file longer than 3000 bytes, then one of
        # 100000, which the graph alone fills.
        code = (
            "import resource, signal, sys, vae_tf\n"
            "from small import small_vae\n"
            "vae = small_vae()\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "for limit in (1000, 100000):\n"
            "    hard = resource.RLIM_INFINITY\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
            "    try:\n"
            "        vae_tf.export(vae, sys.argv[1])\n"
            "    except vae_tf.UserError as error:\n"
            "        print('REFUSED', error)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, str(self.directory)],
            capture_output=True,
            text=True,
            cwd=pathlib.Path(__file__).parents[1],
        )
        refusals = [
            line
            for line in result.stdout.splitlines()
            if line.startswith("REFUSED --export_dir: expected a directory")
        ]
        self.assertLen(refusals, 2, result.stdout + result.stderr)
        self.assertIn("too large", refusals[0])
        self.assertEmpty(os.listdir(self.directory))

    @pytest.mark.slow
    def test_a_killed_export_leaves_no_version_that_is_not_whole(self):
        code = (
            "import sys, vae_tf\n"
            "from small import small_vae\n"
            "vae = small_vae()\n"
            "print('begin', flush=True)\n"
            "while True:\n"
            "    vae_tf.export(vae, sys.argv[1])\n"
        )
        start = time.monotonic()
        vae_tf.export(small_vae(), self.create_tempdir().full_path)
        whole = time.monotonic() - start
        generator = random.Random(0)
        for _ in range(10):
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(self.directory)],
                stdout=subprocess.PIPE,
                cwd=pathlib.Path(__file__).parents[1],
            )
            process.stdout.readline()
            time.sleep(generator.uniform(0.0, 1.5 * whole))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            for path in versions.published(self.directory).values():
                check.check_checksums(path)
        self.assertNotEmpty(versions.published(self.directory))


class BundleTest(tf.test.TestCase):
    """What holds of a bundle, exported once."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.vae = small_vae()
        # Weights in sequence: no two alike, so that none can be swapped.
        start = 0
        for variable in cls.vae.trainable_variables:
            values = np.arange(start, start + np.prod(variable.shape))
            variable.assign(np.sin(values).reshape(variable.shape))
            start += values.size
        cls.path = vae_tf.export(
            cls.vae, cls.directory / "vae", num_importance_samples=3
        )

    def test_runs_in_a_session_of_a_process_without_the_package(self):
        self.assertEqual(self.path, self.directory / "vae/1")
        code = (
            "import sys, numpy as np, tensorflow.compat.v1 as tf\n"
            "with tf.Session(graph=tf.Graph()) as session:\n"
            "    meta = tf.saved_model.loader.load(\n"
            "        session, ['serve'], sys.argv[1])\n"
            "    one = meta.signature_def['serving_default']\n"
            "    for rows in '125':\n"
            "        image = session.run(one.outputs['image'].name,\n"
            "            {one.inputs['z'].name: np.load(f'z{rows}.npy')})\n"
            "        np.save(f'image{rows}.npy', image)\n"
            "assert 'vae_tf' not in sys.modules\n"
        )
        given = {
            rows: np.random.default_rng(rows).standard_normal((rows, 2))
            for rows in (1, 2, 5)
        }
        for rows, z in given.items():
            np.save(self.directory / f"z{rows}.npy", z.astype(np.float32))
        subprocess.run(
            [sys.executable, "-c", code, self.path],
            check=True,
            capture_output=True,
            cwd=self.directory,
        )
        for rows, z in given.items():
            image = np.load(self.directory / f"image{rows}.npy")
            expected = self.vae.decoder(z.astype(np.float32)).mean()
            self.assertAllClose(image, expected, 1e-5, 1e-5)

    def test_holds_the_contract_and_each_weight_once(self):
        loaded = tf.saved_model.load(str(self.path))
        self.assertEqual(set(loaded.signatures), SIGNATURES)
        images = random_bits(3)
        encoded = loaded.signatures["encode"](image=tf.constant(images))
        self.assertAllClose(encoded["mean"], self.vae.encoder(images).mean())
        stored = tf.train.list_variables(str(self.path / "variables/variables"))
        sizes = [np.prod(shape) for name, shape in stored if "used" in name]
        self.assertEqual(sum(sizes), self.vae.count_params())
        data = self.path / "variables/variables.data-00000-of-00001"
        self.assertLess(data.stat().st_size, 1.1 * 4 * sum(sizes) + 2000)
        content = manifest_of(self.path)
        self.assertEqual(content["num_importance_samples"], 3)
        self.assertIsNone(content["trained_on"])


class ExportRunTest(FinishedRun):
    @pytest.mark.slow
    def test_the_manifest_says_what_the_run_is_worth(self):
        run_dir = self.copy()
        directory = run_dir.with_name("exported")
        content = manifest_of(vae_tf.export_run(run_dir, directory))
        told = content["trained_on"]
        self.assertEqual(told["variant"], "digits (scikit-learn)")
        self.assertEqual(told["binarization"], "dynamic")
        self.assertEqual(told["dequantization"], "none")
        self.assertEqual(told["seed"], 0)
        self.assertIsNone(told["test"])
        measured = vae_tf.evaluate_run(
            run_dir, num_importance_samples=5, num_examples=20
        )
        path = vae_tf.export_run(run_dir, directory, keep=1)
        self.assertEqual(os.listdir(directory), ["2"])
        test = manifest_of(path)["trained_on"]["test"]
        self.assertEqual(test["num_importance_samples"], 5)
        self.assertEqual(
            test["log_marginal_likelihood"],
            measured["log_marginal_likelihood"],
        )
        (run_dir / "evaluation-test.json").write_text("{}")
        with self.assertRaisesRegex(vae_tf.UserError, "changed or damaged"):
            vae_tf.export_run(run_dir, directory)


class SharedTest(tf.test.TestCase):
    """What is shown to others holds no path of the machine it was made on."""

    # Training says that the disk of its directory is full.
    @mock.patch.object(shutil, "disk_usage", lambda _: mock.Mock(free=0))
    @pytest.mark.slow
    def test_no_path_is_in_the_report_or_the_bundle(self):
        place = pathlib.Path(self.create_tempdir().full_path) / "at-home"
        crops, run_dir = place / "crops", place / "run"
        crops.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for number in range(30):
            pixels = generator.integers(0, 256, (6, 5), np.uint8)
            Image.fromarray(pixels).save(crops / f"{number}.png")
        vae_tf.train(
            vae_tf.Config(
                run_dir=str(run_dir),
                dataset=str(crops),
                data_dir=str(place),
                epochs=1,
                hidden_units=(4,),
                jit_compile=False,
                tensorboard=False,
                figures_every=1,
            )
        )
        page = (run_dir / "report.html").read_bytes()
        vae_tf.evaluate_run(run_dir, num_importance_samples=2)
        vae_tf.load(run_dir).save(place / "vae.keras")
        with mock.patch.object(export_module, "_check", mock.Mock()):
            bundle = vae_tf.export_run(run_dir, place / "exported")
        shared = {
            path.relative_to(place): path.read_bytes()
            for path in (
                run_dir / "report.html",
                *run_dir.glob("evaluation-*"),
                *run_dir.glob("figures/*.*"),
                place / "vae.keras",
                *bundle.rglob("*"),
            )
            if path.is_file()
        }
        self.assertGreater(len(shared), 12)
        self.assertIn(
            "run: 0 MB are free", (run_dir / "health.log").read_text()
        )
        shared["report before it was measured"] = page
        for name, content in shared.items():
            if str(name).startswith("report") or str(name).endswith(".html"):
                self.assertIn(b"crops", content)
                parts = re.findall(rb"base64,([\w+/=]+)", content)
                self.assertNotEmpty(parts)
                content += b"".join(map(base64.b64decode, parts))
            self.assertNotIn(b"at-home", content, name)
            self.assertNotIn(os.fsencode(pathlib.Path.home()) + b"/", content)
        # And the data is found again.
        config = (run_dir / "config.json").read_text()
        self.assertIn(str(crops), config)
        self.assertLen(load_data_of_run(run_dir).source.images["train"], 24)
