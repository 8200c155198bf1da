import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from small import random_bits, small_vae

import vae_tf
from vae_tf.serving import errors
from vae_tf.serving.bundle_transport import Bundle, version_of
from vae_tf.serving.client import Client
from vae_tf.settings import UserError


class BundleTransportTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae = small_vae()
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        cls.export_dir = pathlib.Path(place.name)
        cls.bundle = vae_tf.export(cls.vae, cls.export_dir, version=3)

    def setUp(self):
        super().setUp()
        self.client = Client(f"bundle:{self.export_dir}")
        self.addCleanup(self.client.close)

    def test_answers_as_the_model_does(self):
        images = random_bits(5)
        posterior = self.vae.encoder(images)
        found = self.client.encode(images)
        self.assertAllClose(found.mean, posterior.mean(), atol=1e-6)
        self.assertAllClose(found.stddev, posterior.stddev(), atol=1e-6)
        self.assertAllClose(
            self.client.decode(found.mean),
            self.vae.decoder(found.mean).mean(),
            atol=1e-6,
        )
        self.assertEqual(self.client.status(), {3: "AVAILABLE"})
        self.assertEqual(self.client.sample_png([7])[0][:4], b"\x89PNG")

    def test_any_signature_by_its_name(self):
        self.assertContainsSubset(["decode", "score"], self.client.signatures())
        found = self.client.predict("sample", seed=[5])
        self.assertAllEqual(found["z"], self.client.sample([5]).z)
        for wrong, words in (
            ({"z": [[0.0, 0.0]]}, "nothing: expected"),
            ({}, "received none"),
            ({"signature": [1]}, "received signature"),
        ):
            with self.assertRaisesRegex(errors.InvalidRequest, words):
                self.client.predict("nothing", **wrong)

    def test_it_takes_what_it_can_use(self):
        for wrong in (
            {"token": "x"},
            {"headers": {}},
            {"ca_file": "x"},
            {"version": 3},
            {"label": "x"},
        ):
            (name,) = wrong
            with self.assertRaisesRegex(UserError, f"{name}: expected none"):
                Client(f"bundle:{self.bundle}", **wrong)

    def test_splits_long_requests(self):
        z = np.random.default_rng(0).standard_normal((7, 2))
        with Client(f"bundle:{self.bundle}", rows_per_request=3) as short:
            self.assertAllClose(short.decode(z), self.client.decode(z))

    def test_refuses_what_a_server_refuses(self):
        with self.assertRaisesRegex(errors.InvalidRequest, "z: expected"):
            self.client.decode([[0.0, 0.0, 0.0]])
        transport = Bundle(
            f"bundle:{self.bundle}",
            "vae",
            timeout=1.0,
            retries=0,
            max_message_bytes=2**20,
        )
        wrong = {"z": np.zeros((1, 3), np.float32)}
        with self.assertRaisesRegex(errors.InvalidRequest, "expected"):
            transport.predict("decode", wrong)
        right = {"z": np.zeros((1, 2), np.float32)}
        with self.assertRaisesRegex(errors.NotFound, "version 4"):
            transport.predict("decode", right, version=4)

    def test_the_highest_version_or_the_one_named(self):
        export_dir = pathlib.Path(self.create_tempdir().full_path)
        for version in ("9", "10"):
            (export_dir / version).mkdir()
            (export_dir / version / "saved_model.pb").write_bytes(b"")
        self.assertEqual(version_of(export_dir).name, "10")
        self.assertEqual(version_of(export_dir / "9").name, "9")

    def test_what_is_no_bundle_is_one_error(self):
        empty = pathlib.Path(self.create_tempdir().full_path)
        for path in (empty, empty / "none", empty / "a\nb"):
            with self.assertRaisesRegex(UserError, "--bundle: expected an exp"):
                version_of(path)
        (empty / "saved_model.pb").write_bytes(b"no protocol buffer")
        with self.assertRaisesRegex(UserError, "--bundle: expected one that"):
            Client(f"bundle:{empty}")


if __name__ == "__main__":
    tf.test.main()
