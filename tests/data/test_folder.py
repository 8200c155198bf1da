import pathlib
import warnings
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import SPLITS
from vae_tf.data import cache, splits
from vae_tf.data import folder as folder_source
from vae_tf.data.disk_images import DiskImages
from vae_tf.data.resizing import resized
from vae_tf.settings import UserError


def load(folder, image_size=None, channels=None):
    return folder_source.load_folder(str(folder), image_size, channels)


def every(source):
    """All images of a source, split after split."""
    return np.concatenate([source.images[split] for split in SPLITS])


class FolderSourceTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        temporary = pathlib.Path(self.create_tempdir().full_path).resolve()
        self.folder = temporary / "crops"
        self.folder.mkdir()
        self.enter_context(
            mock.patch.object(cache, "_directory", lambda: temporary / "cache")
        )

    def save(self, name, level, shape=(4, 4)):
        """A file whose pixels are all of one level, or of one colour."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((*shape, *np.shape(level)), level, np.uint8)
        PIL.Image.fromarray(pixels).save(path)

    def save_many(self, count=20, pattern="{:02}.png", **kwargs):
        for number in range(count):
            self.save(pattern.format(number), number, **kwargs)

    def test_flat(self):
        self.save_many(20)
        source = load(self.folder)
        self.assertEqual(source.name, str(self.folder))
        self.assertEqual(source.variant, "folder crops")
        self.assertEqual(source.levels, 256)
        self.assertEqual(source.images["train"].shape, (16, 4, 4, 1))
        self.assertEqual(source.images["train"].dtype, np.uint8)
        self.assertEqual(source.labels, dict.fromkeys(SPLITS))
        # Image 07.png is row 7, and goes where row 7 goes.
        for split, (_, rows) in splits.split_rows({"train": 20}).items():
            self.assertAllEqual(source.images[split][:, 0, 0, 0], rows)
            self.assertAllEqual(source.images[split][:, 3, 3, 0], rows)

    def test_classes(self):
        for number in range(30):
            name = ("dog", "Cat", "emu")[number % 3]
            self.save(f"{name}/{number}.png", number)
        (self.folder / ".cache").mkdir()
        source = load(self.folder)
        label = {0: 1, 1: 0, 2: 2}  # sorted: Cat, dog, emu
        for split in SPLITS:
            self.assertAllEqual(
                source.labels[split],
                [
                    label[level % 3]
                    for level in source.images[split][:, 0, 0, 0]
                ],
            )
        self.assertAllEqual(np.sort(every(source)[:, 0, 0, 0]), np.arange(30))

    def test_splits_whatever_the_order_of_the_listing(self):
        for number in range(30):
            self.save(f"{number % 2}/{number}.png", number)
        source = load(self.folder)
        glob = pathlib.Path.glob
        with mock.patch.object(
            pathlib.Path, "glob", lambda *args: list(glob(*args))[::-1]
        ):
            reversed_ = load(self.folder)
        for split in SPLITS:
            self.assertAllEqual(reversed_.images[split], source.images[split])
            self.assertAllEqual(reversed_.labels[split], source.labels[split])

    def test_which_files_are_images(self):
        for number, name in enumerate(
            ("a.png", "b.PNG", "c.jpg", "d.JPG", "e.jpeg", "f.Jpeg")
        ):
            self.save(name, 20 * number)
        self.save_many(6)
        self.save(".hidden.png", 250)
        self.save(".hidden/a.png", 250)
        (self.folder / "notes.txt").write_text("no image")
        (self.folder / "folder.png").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # None of them is unreadable.
            levels = every(load(self.folder))[:, 0, 0, 0]
        self.assertAllEqual(
            np.sort(levels), sorted([*range(6), 0, 20, 40, 60, 80, 100])
        )

    @parameterized.parameters(
        (0, None, 1), (0, 1, 1), (0, 3, 3), (1, None, 3), (1, 1, 1), (1, 3, 3)
    )
    def test_channels(self, colours, channels, expected):
        self.save_many(12)
        for number in range(colours):
            self.save(f"{number}.jpg", (30, 60, 90))
        images = every(load(self.folder, channels=channels))
        self.assertEqual(images.shape[1:], (4, 4, expected))
        if colours and expected == 3:
            bright = images[images[..., 2] > 80]
            self.assertAllClose(bright, [[30, 60, 90]] * 16, atol=3)
        grey = images[images[..., 0] < 20]
        self.assertAllEqual(grey, np.repeat(grey[:, :1], expected, axis=1))

    def test_images_of_many_sizes_are_cropped_and_resized(self):
        generator = np.random.default_rng(0)
        expected = set()
        for number in range(12):
            shape = (5 + number % 3, 9 - number % 4, 3)
            image = generator.integers(0, 256, shape).astype(np.uint8)
            PIL.Image.fromarray(image).save(self.folder / f"{number}.png")
            expected.add(resized(image, 4, 3).tobytes())
        images = every(load(self.folder, 4))
        self.assertEqual(images.shape, (12, 4, 4, 3))
        self.assertEqual({image.tobytes() for image in images}, expected)

    def test_images_of_many_sizes_need_a_size(self):
        self.save_many(10)
        self.save("05.png", 0, shape=(6, 5))
        with self.assertRaisesRegex(
            UserError,
            r"--image_size: .*\(4x4 of 00.png, 6x5 of 05.png.* received None",
        ):
            load(self.folder)

    @parameterized.parameters((None, None), (6, 3), (3, 1))
    def test_streaming_gives_what_memory_gives(self, image_size, channels):
        generator = np.random.default_rng(0)
        for number in range(20):
            image = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
            image = PIL.Image.fromarray(image)
            path = self.folder / f"{'ab'[number % 2]}/{number}.png"
            path.parent.mkdir(exist_ok=True)
            (image if number % 3 else image.convert("L")).save(path)
        memory = load(self.folder, image_size, channels)
        with mock.patch.object(splits, "MEMORY_LIMIT", 100):
            disk = load(self.folder, image_size, channels)
        for split in SPLITS:
            self.assertIsInstance(memory.images[split], np.ndarray)
            self.assertIsInstance(disk.images[split], DiskImages)
            self.assertEqual(
                disk.images[split].shape, memory.images[split].shape
            )
            self.assertAllEqual(disk.images[split][:], memory.images[split])
            self.assertAllEqual(disk.labels[split], memory.labels[split])
        # A file that changed is another one.
        image.save(path)
        with mock.patch.object(splits, "MEMORY_LIMIT", 100):
            again = load(self.folder, image_size, channels)
        self.assertNotEqual(again.images["test"].path, disk.images["test"].path)

    def test_memory_is_that_of_the_resized_images(self):
        self.save_many(10)
        with mock.patch.object(splits, "MEMORY_LIMIT", 10 * 4 * 4):
            self.assertIsInstance(load(self.folder).images["train"], np.ndarray)
            for asked in ((5, None), (None, 3)):
                images = load(self.folder, *asked).images["train"]
                self.assertIsInstance(images, DiskImages)

    def corrupt(self, name="corrupt.png"):
        """A file whose head is that of an image, and that ends too early."""
        generator = np.random.default_rng(0)
        image = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        path = self.folder / name
        PIL.Image.fromarray(image).save(path)
        path.write_bytes(path.read_bytes()[:-200])

    def test_unreadable_files_are_skipped_by_name(self):
        self.save_many(12)
        self.corrupt("cut.png")
        self.corrupt("cut.jpg")
        (self.folder / "empty.png").touch()
        (self.folder / "gone.png").symlink_to(self.folder / "nowhere")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            source = load(self.folder)
        self.assertAllEqual(np.sort(every(source)[:, 0, 0, 0]), np.arange(12))
        (message,) = (str(w.message) for w in said)
        self.assertRegex(
            message,
            r"--dataset: skipped 4 of 16 images in .*crops that .*: cut.jpg "
            r"\(.*truncated.*\), cut.png \(.*truncated.*\), empty.png \(not an "
            r"image\), gone.png \(.*No such file.*\)\.$",
        )

    def test_at_most_twenty_unreadable_files_are_named(self):
        self.save_many(10)
        for number in range(25):
            (self.folder / f"x{number:02}.png").write_text("no image")
        with self.assertWarnsRegex(
            UserWarning, r"25 of 35 .*x19.png \(not an image\) and 5 more\.$"
        ):
            load(self.folder)

    def test_labels_of_what_is_readable(self):
        for number in range(12):
            self.save(f"b/{number:02}.png", number)
        (self.folder / "a").mkdir()
        (self.folder / "a/first.png").touch()
        with self.assertWarnsRegex(UserWarning, "1 of 13 .*a/first.png"):
            source = load(self.folder)
        for split in SPLITS:
            self.assertAllEqual(
                source.labels[split], np.ones(len(source.images[split]))
            )

    def test_no_readable_image(self):
        for number in range(3):
            (self.folder / f"{number}.png").touch()
        with self.assertRaisesRegex(
            UserError,
            "--dataset: expected a folder of readable images, received "
            r".*crops with 3 of 3 unreadable: 0.png \(not an image\), 1.png",
        ):
            load(self.folder)

    def test_no_image_file(self):
        (self.folder / "notes.txt").touch()
        with self.assertRaisesRegex(
            UserError,
            r"--dataset: expected a folder of .png, .jpg, .jpeg images, .* "
            "received .*crops without any",
        ):
            load(self.folder)

    def test_both_flat_and_classes(self):
        self.save_many(10)
        self.save("cats/a.png", 0)
        with self.assertRaisesRegex(
            UserError,
            r"--dataset: expected images either .* with both \(00.png, "
            r"cats/a.png\)",
        ):
            load(self.folder)

    def test_too_few_images(self):
        self.save_many(9)
        with self.assertRaisesRegex(
            UserError, "--dataset: expected at least 10 images, received 9"
        ):
            load(self.folder)

    def test_more_files_than_are_handed_out_at_a_time(self):
        self.save_many(23)
        with mock.patch.object(folder_source, "AT_A_TIME", 5):
            levels = every(load(self.folder))[:, 0, 0, 0]
        self.assertAllEqual(np.sort(levels), np.arange(23))
