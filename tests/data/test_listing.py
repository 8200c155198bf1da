import pathlib
import warnings

import tensorflow as tf
from absl.testing import parameterized

from vae_tf.data.listing import listed
from vae_tf.settings import UserError


class ListingTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "crops"
        self.folder.mkdir()

    def touch(self, *names):
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).touch()

    def listed(self):
        """What is found where nothing is left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [tuple(each) for each in listed(self.folder)]

    def test_flat(self):
        self.touch("b.png", "a.JPG", ".hidden.png", ".hidden/a.png")
        self.assertEqual(
            self.listed(), [("a.JPG", "train", None), ("b.png", "train", None)]
        )

    def test_classes(self):
        self.touch("test/b.png", "Cat/a.bmp")
        self.assertEqual(
            self.listed(),
            [("Cat/a.bmp", "train", "Cat"), ("test/b.png", "train", "test")],
        )

    def test_splits_flat_or_of_classes(self):
        self.touch("Train/a.png", "valid/cat/b.gif", "TEST/c.webp")
        self.assertEqual(
            self.listed(),
            [
                ("TEST/c.webp", "test", None),
                ("Train/a.png", "train", None),
                ("valid/cat/b.gif", "validation", "cat"),
            ],
        )

    def test_a_class_of_a_split_may_be_called_like_a_split(self):
        self.touch("train/test/a.png", "test/train/a.png")
        self.assertEqual(
            self.listed(),
            [
                ("test/train/a.png", "test", "train"),
                ("train/test/a.png", "train", "test"),
            ],
        )

    def test_train_alone(self):
        self.touch("train/cat/a.png")
        self.assertEqual(self.listed(), [("train/cat/a.png", "train", "cat")])

    @parameterized.parameters(
        (
            ("train/cat/a.png", "dog/b.png"),
            r"train, validation and test or in others, received .*crops with "
            r"both \(train/cat/a.png, dog/b.png\)",
        ),
        (("train/a.png", "b.png"), r"both \(train/a.png, b.png\)"),
        (("test/a.png",), "in a folder train beside test, received .*crops w"),
        (("test/c/a.png", "val/b.png"), "a folder train beside test, received"),
        (
            ("train/a.png", "val/b.png", "validation/c.png"),
            "one folder for validation, received .*crops with val and valida",
        ),
        (("train/a.png", "Test/a.png", "test/b.png"), "with Test and test"),
        (
            ("train/a.png", "test/notes.txt"),
            "images in every split, received .*crops without any in test",
        ),
        (
            ("a.png", "cats/b.png"),
            r"either in the folder itself .* both \(a.png, cats/b.png\)",
        ),
        (
            ("train/a.png", "train/cat/b.png"),
            r"with both \(train/a.png, train/cat/b.png\)",
        ),
    )
    def test_what_is_not_clear(self, names, message):
        self.touch(*names)
        with self.assertRaisesRegex(UserError, f"--dataset: .*{message}"):
            listed(self.folder)

    @parameterized.parameters(
        ((), "with no file instead"),
        (("a.txt", "b.HEIC", "c.heic"), "with 2 .heic and 1 .txt instead"),
        (
            ("a/b/c.png",),
            r"with 1 file in deeper folders \(a/b/c.png\) instead",
        ),
    )
    def test_no_image(self, names, message):
        self.touch(*names)
        with self.assertRaisesRegex(
            UserError, f"a folder of .png, .* received .*crops {message}"
        ):
            listed(self.folder)

    @parameterized.parameters(
        (("a.png", "b.txt"), "left out 1 .txt of"),
        (
            ("a.png", "b.txt", "c.mov", "d/e.mov", "README", "x/y/z.png"),
            "left out 2 .mov, 1 without a suffix, 1 .txt and 1 file in "
            r"deeper folders \(x/y/z.png\) of",
        ),
        (
            ("cat/a.png", "cat/b/c.png", "d/e/f/g.txt"),
            r"left out 2 files in deeper folders \(cat/b/c.png, ...\) of",
        ),
        (
            ("train/c/a.png", "train/c/b/a.png", "masks/deep/a.png", "n.txt"),
            r"left out 1 .txt and 2 files in deeper folders \(masks/deep",
        ),
        (
            ("a.png", *(f"b.{n}" for n in range(12))),
            "1 .9 and 2 of other kinds of|1 .7 and 2 of other kinds of",
        ),
    )
    def test_what_is_left_out(self, names, message):
        self.touch(*names)
        with self.assertWarnsRegex(
            UserWarning, f"--dataset: .*{message}.*"
        ) as said:
            found = listed(self.folder)
        self.assertLen(found, 1)
        self.assertEndsWith(str(said.warning), f" of {self.folder}.")

    def test_links(self):
        self.touch("cat/a.png", "train_of/b.png")
        elsewhere = self.folder.with_name("elsewhere")
        elsewhere.mkdir()
        (elsewhere / "c.png").touch()
        (self.folder / "linked").symlink_to(elsewhere)
        (self.folder / "cat/up").symlink_to(self.folder)
        (self.folder / "self").symlink_to(self.folder / "self")
        with self.assertWarnsRegex(UserWarning, "1 without a suffix and "):
            names = [each.name for each in listed(self.folder)]
        self.assertEqual(names, ["cat/a.png", "linked/c.png", "train_of/b.png"])

    def test_a_folder_that_cannot_be_read(self):
        with self.assertRaisesRegex(
            UserError, "a folder that can be read, .* No such file"
        ):
            listed(self.folder / "gone")
