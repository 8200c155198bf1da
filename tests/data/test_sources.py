import contextlib
import os
import pathlib
import urllib.error
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import SPLITS
from vae_tf.data import sources
from vae_tf.settings import UserError


class SourcesTest(tf.test.TestCase, parameterized.TestCase):
    def test_digits(self):
        source = sources.load_source("digits", None)
        self.assertEqual(source.levels, 17)
        sizes = {split: len(source.images[split]) for split in SPLITS}
        self.assertEqual(sizes, {"train": 1439, "validation": 179, "test": 179})
        every = np.concatenate([source.images[split] for split in SPLITS])
        self.assertEqual((every.min(), every.max()), (0, 16))
        # Each image of the original once, with the label it came with.
        from sklearn.datasets import load_digits

        digits = load_digits()
        original = {
            (image.astype(np.uint8).tobytes(), int(label))
            for image, label in zip(digits.images, digits.target)
        }
        ours = {
            (image.tobytes(), int(label))
            for split in SPLITS
            for image, label in zip(source.images[split], source.labels[split])
        }
        self.assertEqual(ours, original)

    @parameterized.parameters(
        (8, None, "--image_size: .* digits, which are 8x8x1, received 8"),
        (None, 1, "--channels: .* digits, which are 8x8x1, received 1"),
    )
    def test_digits_have_one_shape(self, image_size, channels, message):
        with self.assertRaisesRegex(UserError, message):
            sources.load_source("digits", None, image_size, channels)

    def test_channels_are_one_or_three(self):
        for dataset in ("digits", "mnist", "./anywhere", None):
            with self.assertRaisesRegex(
                UserError, r"--channels: expected 1 \(grey\) or 3 .* received 4"
            ):
                sources.load_source(dataset, None, channels=4)

    def test_unset_falls_back_to_digits_loudly(self):
        with (
            no_network(),
            self.assertWarnsRegex(UserWarning, "8x8 digits .*no network here"),
        ):
            source = sources.load_source(None, self.create_tempdir().full_path)
        self.assertEqual(source.name, "digits")

    def test_digits_never_stand_in_for_resized_images(self):
        with (
            no_network(),
            self.assertRaisesRegex(UserError, "received 'mnist' .*no network"),
        ):
            sources.load_source(None, self.create_tempdir().full_path, 32)

    def test_a_folder_by_path_or_bare_name(self):
        parent = pathlib.Path(self.create_tempdir().full_path).resolve()
        self.save_images(parent / "crops")
        self.save_images(parent / "mnist")
        self.enter_context(working_in(parent))
        for dataset in ("crops", "./crops", str(parent / "crops"), "~/crops"):
            with mock.patch.dict(os.environ, HOME=str(parent)):
                source = sources.load_source(dataset, None)
            self.assertEqual(source.name, str(parent / "crops"))
            self.assertEqual(source.variant, "folder crops")
        # A bare name that TFDS knows is TFDS's.
        source = sources.load_source("./mnist", None)
        self.assertEqual(source.name, str(parent / "mnist"))
        with (
            no_network(),
            self.assertRaisesRegex(UserError, "received 'mnist' .*no network"),
        ):
            sources.load_source("mnist", str(parent / "tfds"))
        # What it is called loads it again, from anywhere.
        os.chdir("/")
        again = sources.load_source(source.name, None)
        for split in SPLITS:
            self.assertAllEqual(again.images[split], source.images[split])

    def test_size_and_channels_reach_the_images(self):
        folder = pathlib.Path(self.create_tempdir().full_path) / "crops"
        self.save_images(folder)
        source = sources.load_source(str(folder), None, 5, 3)
        self.assertEqual(source.images["train"].shape, (8, 5, 5, 3))
        for dataset in ("mnist", None):
            with mock.patch.object(sources, "load_tfds") as load_tfds:
                sources.load_source(dataset, "data", 5, 3)
            load_tfds.assert_called_once_with("mnist", "data", 5, 3)

    @parameterized.parameters(
        ("no_such_dataset", "not found"),
        ("", "failed"),
        ("./no_such_folder", "no such path"),
        ("~/no_such_folder", "no such path"),
        ("no_such.npz", "no such path"),
        ("/dev/null", "neither a folder nor an .npz"),
        (__file__, "neither a folder nor an .npz"),
    )
    def test_neither_dataset_nor_folder(self, dataset, reason):
        with self.assertRaisesRegex(
            UserError,
            "--dataset: expected a TFDS image dataset, 'digits', a folder of "
            f"images or an .npz of arrays, received '{dataset}' .*{reason}",
        ):
            sources.load_source(dataset, None)

    def test_a_file_by_its_bare_name(self):
        parent = pathlib.Path(self.create_tempdir().full_path).resolve()
        (parent / "crops.zip").touch()
        self.enter_context(working_in(parent))
        with self.assertRaisesRegex(UserError, "'crops.zip' .neither a folder"):
            sources.load_source("crops.zip", None)

    def test_an_npz_by_path_bare_name_or_link(self):
        parent = pathlib.Path(self.create_tempdir().full_path).resolve()
        levels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
        np.savez(parent / "blob.npz", images=levels)
        (parent / "blob.npz").rename(parent / "blob")
        (parent / "My.NPZ").symlink_to("blob")
        self.enter_context(working_in(parent))
        for dataset in ("My.NPZ", "./My.NPZ", "~/My.NPZ"):
            with mock.patch.dict(os.environ, HOME=str(parent)):
                source = sources.load_source(dataset, None)
            self.assertEqual(source.name, str(parent / "My.NPZ"))
        os.chdir("/")
        again = sources.load_source(source.name, None)
        self.assertAllEqual(again.images["test"], source.images["test"])
        for shape, flag in (((8, None), "image_size"), ((None, 3), "channels")):
            with self.assertRaisesRegex(
                UserError, f"--{flag}: expected None for an .npz"
            ):
                sources.load_source(source.name, None, *shape)

    def test_a_version_of_tfds_is_no_folder(self):
        parent = pathlib.Path(self.create_tempdir().full_path)
        for folder in ("mnist/3.0.1", "mine/3.0.1"):
            (parent / folder).parent.mkdir()
            self.save_images(parent / folder)
        self.enter_context(working_in(parent))
        source = sources.load_source("mine/3.0.1", None)
        self.assertEqual(source.variant, "folder 3.0.1")
        with mock.patch.object(sources, "load_tfds") as load_tfds:
            sources.load_source("mnist/3.0.1", None)
        load_tfds.assert_called_once_with("mnist/3.0.1", None, None, None)

    def test_a_path_that_no_page_could_show(self):
        name = os.fsdecode(b"./\xff")
        with self.assertRaisesRegex(UserError, "UTF-8, received './.udcff'"):
            sources.load_source(name, None)

    def save_images(self, folder):
        folder.mkdir()
        for number in range(10):
            pixels = np.full((2, 2), number, np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{number}.png")


@contextlib.contextmanager
def working_in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def no_network():
    return mock.patch(
        "urllib.request.urlopen",
        side_effect=urllib.error.URLError("no network here"),
    )
