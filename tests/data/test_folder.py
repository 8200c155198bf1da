import os
import pathlib
import warnings
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import SPLITS
from vae_tf.data import cache, listing, splits
from vae_tf.data import folder as folder_source
from vae_tf.data.disk_images import DiskImages
from vae_tf.data.resizing import resized
from vae_tf.settings import UserError


def load(folder, image_size=None, channels=None):
    return folder_source.load_folder(folder, image_size, channels)


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
        path.parent.mkdir(parents=True, exist_ok=True)
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
        listed = listing._files
        with mock.patch.object(
            listing,
            "_files",
            lambda *args: list(listed(*args))[::-1],
        ):
            reversed_ = load(self.folder)
        for split in SPLITS:
            self.assertAllEqual(reversed_.images[split], source.images[split])
            self.assertAllEqual(reversed_.labels[split], source.labels[split])

    def test_folders_that_are_splits(self):
        self.save_many(20, "train/{:02}.png")
        for number in range(3):
            self.save(f"test/{number}.png", 100 + number)
            self.save(f"val/{number}.png", 200 + number)
        source = load(self.folder)
        # Nothing that is held out was trained on, and nothing is left over.
        for split, levels in (
            ("train", range(20)),
            ("validation", (200, 201, 202)),
            ("test", (100, 101, 102)),
        ):
            self.assertAllEqual(source.images[split][:, 0, 0, 0], levels)
        self.assertEqual(source.labels, dict.fromkeys(SPLITS))

    def test_a_split_without_a_folder_is_cut_from_train(self):
        self.save_many(20, "train/{:02}.png")
        self.save("test/a.png", 200)
        source = load(self.folder)
        rows = splits.split_rows({"train": 20, "test": 1})
        for split in ("train", "validation"):
            self.assertAllEqual(
                source.images[split][:, 0, 0, 0], rows[split][1]
            )
        self.assertAllEqual(source.images["test"][:, 0, 0, 0], [200])
        self.assertLen(source.images["validation"], 2)

    @parameterized.parameters(False, True)
    def test_classes_have_one_number_in_all_splits(self, streamed):
        for number in range(10):
            self.save(f"train/{('emu', 'cat')[number % 2]}/{number}.png", 0)
        self.save("test/emu/a.png", 1)
        self.save("test/dog/b.png", 2)
        self.save("validation/flat.png", 3)
        with mock.patch.object(
            splits, "MEMORY_LIMIT", 0 if streamed else 2**20
        ):
            source = load(self.folder)
        # cat, dog, emu; in the order of the names dog/b.png, emu/a.png.
        self.assertAllEqual(source.labels["train"], [0] * 5 + [2] * 5)
        self.assertAllEqual(source.labels["test"], [1, 2])
        self.assertIsNone(source.labels["validation"])
        for split, levels in (("test", [2, 1]), ("validation", [3])):
            self.assertAllEqual(source.images[split][:][:, 0, 0, 0], levels)

    def test_a_split_of_which_nothing_can_be_read(self):
        self.save_many(10, "train/{:02}.png")
        self.save("test/a.png", 0)
        (self.folder / "test/a.png").write_text("no image")
        with self.assertRaisesRegex(
            UserError, r"1 of 1 unreadable: test/a.png \(not an image\)"
        ):
            load(self.folder)

    def test_which_files_are_images(self):
        for number, name in enumerate(
            ("a.png", "b.PNG", "c.jpg", "d.JPG", "e.jpeg", "f.Jpeg")
        ):
            self.save(name, 20 * number)
        self.save_many(6)
        self.save(".hidden.png", 250)
        self.save(".hidden/a.png", 250)
        (self.folder / "folder.png").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # None of them is unreadable.
            levels = every(load(self.folder))[:, 0, 0, 0]
        self.assertAllEqual(
            np.sort(levels), sorted([*range(6), 0, 20, 40, 60, 80, 100])
        )

    @parameterized.parameters(
        (".png", "RGB"),
        (".jpg", "CMYK"),
        (".bmp", "RGB"),
        (".gif", "P"),
        (".tif", "CMYK"),
        (".TIFF", "RGB"),
        (".webp", "RGB"),
        (".ppm", "RGB"),
    )
    def test_formats(self, suffix, mode):
        self.save_many(9)
        pixels = np.full((4, 4, 3), (204, 102, 51), np.uint8)
        image = PIL.Image.fromarray(pixels).convert(mode)
        image.save(self.folder / f"colours{suffix}")
        (colours,) = (
            image for image in every(load(self.folder)) if image.max() > 9
        )
        self.assertAllClose(colours, pixels, atol=3)

    @parameterized.parameters(".gif", ".tif", ".webp")
    def test_the_first_of_several_images(self, suffix):
        self.save_many(9)
        first, second = (
            PIL.Image.new("RGB", (4, 4), (level,) * 3) for level in (100, 200)
        )
        first.save(
            self.folder / f"a{suffix}", save_all=True, append_images=[second]
        )
        levels = np.sort(every(load(self.folder))[:, 0, 0, 0])
        self.assertAllClose(levels, [*range(9), 100], atol=1)

    def test_grey_levels_of_sixteen_bits_and_of_floats(self):
        self.save_many(9)
        for name, level in (
            ("deep.png", np.uint16(257 * 30)),
            ("deep.tif", np.uint16(257 * 40)),
            ("unit.tif", np.float32(50 / 255)),
            ("byte.tif", np.float32(60)),
        ):
            pixels = np.full((4, 4), level)
            PIL.Image.fromarray(pixels).save(self.folder / name)
        for name, level in (("low.tif", -1), ("high.tif", 256)):
            pixels = np.full((4, 4), level, np.float32)
            PIL.Image.fromarray(pixels).save(self.folder / name)
        with self.assertWarnsRegex(
            UserWarning,
            r"skipped 2 of 15 .*: high.tif \(floats from 256.0 to 256.0, "
            r"outside \[0, 1\] and \[0, 255\]\), low.tif \(floats from -1.0",
        ):
            images = every(load(self.folder))
        self.assertEqual(images.shape[1:], (4, 4, 1))
        self.assertAllEqual(
            np.sort(images[:, 0, 0, 0]), [*range(9), 30, 40, 50, 60]
        )

    def test_no_other_program_is_started(self):
        self.save_many(10)
        image = PIL.Image.new("RGB", (4, 4))
        image.save(self.folder / "disguised.png", "eps")
        with (
            mock.patch("subprocess.Popen", side_effect=AssertionError),
            self.assertWarnsRegex(
                UserWarning, r"1 of 11 .*: disguised.png \(not an image\)\.$"
            ),
        ):
            load(self.folder)

    def test_only_regular_files_are_opened(self):
        self.save_many(10)
        os.mkfifo(self.folder / "pipe.png")
        (self.folder / "linked.png").symlink_to(self.folder / "00.png")
        with self.assertWarnsRegex(
            UserWarning, r"1 of 12 .*: pipe.png \(not a regular file\)\.$"
        ):
            images = every(load(self.folder))
        self.assertAllEqual(np.sort(images[:, 0, 0, 0]), [0, *range(10)])

    def test_names_that_no_terminal_shows(self):
        self.save_many(10)
        for name in (b"\xff.png", b"a\nb.png", "\u00e9.png".encode()):
            (self.folder / os.fsdecode(name)).touch()
        with self.assertWarnsRegex(
            UserWarning,
            r"3 of 13 .*: 'a\\nb.png' \(.*, \u00e9.png \(.*, '\\udcff.png' \(",
        ) as said:
            load(self.folder)
        str(said.warning).encode()

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

    def test_a_file_that_would_fill_any_memory_is_skipped(self):
        self.save_many(12)
        PIL.Image.new("1", (2**13, 2**13 + 1)).save(self.folder / "x.png")
        with self.assertWarnsRegex(
            UserWarning, r"skipped 1 of 13 .* x.png \(67,117,056 pixels\)"
        ):
            source = load(self.folder)
        self.assertLen(every(source), 12)

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
