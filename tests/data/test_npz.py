import io
import pathlib
import warnings
import zipfile
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import SPLITS
from vae_tf.data import npz, splits
from vae_tf.data.npz import load_npz
from vae_tf.settings import UserError

GENERATOR = np.random.default_rng(0)
TRAIN, TEST = (
    GENERATOR.integers(0, 256, (count, 3, 2)).astype(np.uint8)
    for count in (20, 5)
)


class NpzTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "my.npz"

    def load(self, **arrays):
        np.savez(self.path, **arrays)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return load_npz(self.path)

    def test_named_as_keras_names_them(self):
        labels = {"y_train": np.arange(20), "y_test": np.arange(5)}
        source = self.load(x_train=TRAIN, x_test=TEST, **labels)
        self.assertEqual(source.name, str(self.path))
        self.assertEqual(source.variant, "npz my")
        self.assertEqual(source.levels, 256)
        self.assertAllEqual(source.images["test"][..., 0], TEST)
        self.assertAllEqual(source.labels["test"], range(5))
        rows = splits.split_rows({"train": 20, "test": 5})
        for split in ("train", "validation"):
            chosen = rows[split][1]
            self.assertAllEqual(source.images[split][..., 0], TRAIN[chosen])
            self.assertAllEqual(source.labels[split], chosen)

    @parameterized.parameters("x_val", "x_valid", "x_validation")
    def test_validation(self, name):
        source = self.load(x_train=TRAIN, **{name: TEST})
        self.assertAllEqual(source.images["validation"][..., 0], TEST)
        self.assertEqual(source.labels, dict.fromkeys(SPLITS))

    def test_one_array_with_labels_and_levels(self):
        source = self.load(
            images=TRAIN % 17, labels=np.arange(20), levels=np.int16(17)
        )
        self.assertEqual(source.levels, 17)
        for split, (_, rows) in splits.split_rows({"train": 20}).items():
            self.assertAllEqual(source.images[split][..., 0], TRAIN[rows] % 17)
            self.assertAllEqual(source.labels[split], rows)

    def test_compressed_floats(self):
        np.savez_compressed(self.path, images=np.float32(TRAIN / 255))
        source = load_npz(self.path)
        self.assertEqual(source.levels, 256)
        every = np.concatenate([source.images[split] for split in SPLITS])
        self.assertEqual(
            sorted(image.tobytes() for image in every),
            sorted(image.tobytes() for image in TRAIN),
        )

    def test_what_is_left_out_is_named(self):
        np.savez(self.path, x_train=TRAIN, names=np.arange(3), images_too=TRAIN)
        with self.assertWarnsRegex(
            UserWarning, "left out names, images_too of .*my.npz"
        ):
            load_npz(self.path)

    @parameterized.named_parameters(
        (
            "names",
            {"a": TRAIN, "b": TEST},
            "x_test.* or images.* received a, b",
        ),
        ("empty", {}, "received none"),
        (
            "many",
            {f"a{n:02}": n for n in range(25)},
            "received a00, .* a19 and 5 more",
        ),
        ("both", {"images": TRAIN, "x_train": TRAIN}, "images, x_train"),
        ("no_train", {"x_test": TRAIN}, "images: expected those of train"),
        (
            "labels",
            {"images": TRAIN, "labels": np.arange(19)},
            "labels: expected 20 for train, .* received 19",
        ),
        (
            "labels_alone",
            {"x_train": TRAIN, "y_test": np.arange(5)},
            "labels: expected 0 for test, .* received 5",
        ),
        (
            "levels",
            {"images": TRAIN, "levels": 256.0},
            "levels: expected an integer from 2 .* received 256.0",
        ),
        (
            "between",
            {"images": np.float32(TRAIN / 256)},
            "images: expected values on 256 equally spaced levels",
        ),
        (
            "pickles",
            {"x_train": TRAIN, "y_train": np.array([{}] * 20)},
            "y_train of Python objects, which are not unpickled",
        ),
    )
    def test_refuses(self, arrays, message):
        with self.assertRaisesRegex(UserError, f"my.npz: .*{message}"):
            self.load(**arrays)

    def test_damaged(self):
        np.savez(self.path, x_train=TRAIN)
        whole = self.path.read_bytes()
        flipped = bytearray(whole)
        flipped[250] ^= 1
        array = io.BytesIO()
        np.save(array, TRAIN)
        for content in (flipped, whole[:-60], b"", array.getvalue()):
            self.path.write_bytes(bytes(content))
            with self.assertRaisesRegex(
                UserError, r"an .npz of arrays, received a damaged file \(.+\)"
            ):
                load_npz(self.path)

    @parameterized.parameters(b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{")
    def test_a_damaged_array(self, content):
        with zipfile.ZipFile(self.path, "w") as file:
            file.writestr("x_train.npy", content)
        with self.assertRaisesRegex(UserError, "received a damaged file"):
            load_npz(self.path)

    def test_a_header_that_promises_more_than_there_is(self):
        array = io.BytesIO()
        np.save(array, TRAIN)
        content = array.getvalue().replace(b"(20, 3, 2)", b"(90, 3, 2)")
        with zipfile.ZipFile(self.path, "w") as file:
            file.writestr("x_train.npy", content)
        with self.assertRaisesRegex(UserError, "received a damaged file"):
            load_npz(self.path)

    def test_what_would_not_fit_is_not_unpacked(self):
        array = io.BytesIO()
        np.save(array, TRAIN)
        huge = array.getvalue().replace(b"(20, 3, 2), ", b"(8589934592,), ")
        with zipfile.ZipFile(self.path, "w") as file:
            file.writestr("x_train.npy", huge)
        with (
            mock.patch.object(
                np.lib.format, "read_array", side_effect=AssertionError
            ),
            self.assertRaisesRegex(
                UserError,
                "at most 2,147,483,648 bytes .* received 8,589,934,592",
            ),
        ):
            load_npz(self.path)

    def test_a_small_file_of_zeros(self):
        zeros = np.zeros((1000, 50, 50), np.uint8)
        np.savez_compressed(self.path, images=zeros)
        self.assertLess(self.path.stat().st_size, 10_000)
        with (
            mock.patch.object(npz, "MEMORY_LIMIT", 1_000_000),
            self.assertRaisesRegex(
                UserError, "at most 1,000,000 bytes of .* received 2,500,128"
            ),
        ):
            load_npz(self.path)
