import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import SPLITS
from vae_tf.data import splits
from vae_tf.data.arrays import load_arrays
from vae_tf.settings import UserError


def images_of(first, count):
    """uint8 images [count, 2, 3, 1], each of a level of its own."""
    levels = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(levels.reshape(-1, 1, 1, 1), (count, 2, 3, 1))


TRAIN, VALIDATION, TEST = (
    images_of(0, 200),
    images_of(200, 3),
    images_of(210, 4),
)


class ArraysTest(tf.test.TestCase, parameterized.TestCase):
    def assertSplits(self, source, **expected):
        for split in SPLITS:
            images = source.images[split]
            self.assertEqual(images.dtype, np.uint8)
            self.assertAllEqual(images, expected[split])

    def test_one_array_is_cut(self):
        labels = np.arange(200) % 7
        source = load_arrays(TRAIN, labels)
        self.assertEqual((source.name, source.variant), ("arrays", "arrays"))
        self.assertEqual(source.levels, 256)
        for split, (_, rows) in splits.split_rows({"train": 200}).items():
            self.assertAllEqual(source.images[split], TRAIN[rows])
            self.assertAllEqual(source.labels[split], labels[rows])

    @parameterized.parameters(tuple, list)
    def test_a_pair_is_of_train_and_test(self, sequence):
        labels = sequence([np.arange(200), np.arange(4)])
        source = load_arrays(sequence([TRAIN, TEST]), labels)
        rows = splits.split_rows({"train": 200, "test": 4})
        self.assertSplits(
            source,
            train=TRAIN[rows["train"][1]],
            validation=TRAIN[rows["validation"][1]],
            test=TEST,
        )
        self.assertAllEqual(source.labels["validation"], rows["validation"][1])
        self.assertAllEqual(source.labels["test"], range(4))

    def test_a_triple_and_a_dict(self):
        for images in (
            (TRAIN, VALIDATION, TEST),
            {"test": TEST, "val": VALIDATION, "train": TRAIN},
        ):
            source = load_arrays(images)
            self.assertSplits(
                source, train=TRAIN, validation=VALIDATION, test=TEST
            )
            self.assertEqual(source.labels, dict.fromkeys(SPLITS))

    def test_labels_of_some_splits(self):
        for labels in ((None, [5, 6, 7, 8]), {"test": [[5], [6], [7], [8]]}):
            source = load_arrays((TRAIN, TEST), labels)
            self.assertIsNone(source.labels["train"])
            self.assertIsNone(source.labels["validation"])
            self.assertAllEqual(source.labels["test"], [5, 6, 7, 8])
            self.assertEqual(source.labels["test"].dtype, np.int64)

    @parameterized.parameters((1, 4), (3, 4), (None, 3))
    def test_shapes(self, channels, rank):
        shape = (20, 2, 3, channels)[:rank]
        array = np.random.default_rng(0).integers(0, 256, shape)
        source = load_arrays({"train": array, "test": array[:2]})
        self.assertEqual(source.images["test"].shape, (2, 2, 3, channels or 1))
        self.assertAllEqual(source.images["test"].ravel(), array[:2].ravel())

    def test_what_becomes_of_the_array_is_no_matter(self):
        array = np.array(TRAIN)
        source = load_arrays((array, array, array))
        array[:] = 0
        self.assertAllEqual(source.images["test"], TRAIN)

    def test_levels_are_those_of_all_splits(self):
        source = load_arrays((TRAIN / 255, TEST / 255))
        self.assertEqual(source.levels, 256)
        self.assertAllEqual(source.images["test"], TEST)
        source = load_arrays(TRAIN % 17, levels=17)
        self.assertEqual(source.levels, 17)
        self.assertEqual(source.images["train"].max(), 16)
        self.assertEqual(load_arrays(TRAIN > 100).levels, 2)

    def test_tensors(self):
        source = load_arrays((tf.constant(TRAIN), tf.constant(TEST)))
        self.assertAllEqual(source.images["test"], TEST)

    @parameterized.named_parameters(
        ("flat", TRAIN.reshape(200, 6), r"\(200, 6\) for train\."),
        ("channels", np.zeros((20, 8, 8, 4)), r"C of 1 or 3.*8, 4\) for train"),
        (
            "channels_first",
            np.zeros((20, 3, 8, 8)),
            r"\(20, 3, 8, 8\) for train \(np.moveaxis\(images, 1, -1\) puts",
        ),
        ("empty", np.zeros((0, 8, 8)), r"\[N, H, W\] .* shape \(0, 8, 8\)"),
        ("no_pixels", np.zeros((20, 0, 8)), r"shape \(20, 0, 8\)"),
        ("empty_test", (TRAIN, TEST[:0]), r"\(0, 2, 3, 1\) for test"),
        ("too_few", TRAIN[:9], "at least 10 images, received 9"),
        (
            "shapes",
            (TRAIN, TEST[:, :1]),
            r"one shape in all splits, received \(2, 3, 1\) \(train\), \(1, 3",
        ),
        (
            "dtypes",
            (TRAIN / 255, TEST),
            r"one dtype .* received float64 \(train\), uint8 \(test\)",
        ),
        ("objects", np.array([None] * 20), "numbers for train, .*dtype object"),
        ("words", "my.npz", "numbers for train, received a str of dtype <U6"),
        ("complex", TRAIN * 1j, "numbers for train, .*dtype complex128"),
        ("dates", TRAIN.astype("M8[s]"), "numbers for train, .*datetime64"),
        ("nothing", (TRAIN, None), "numbers for test, received a NoneType"),
        ("ragged", [TRAIN[0], TEST[0, 0]] * 5, "an array for train, received"),
        ("as_keras", ((TRAIN, 0), (TEST, 0)), "train, received a tuple of 2 "),
        ("four", (TRAIN,) * 4, "expected an array, a pair .* a tuple of 4"),
        ("no_train", {"test": TRAIN}, "those of train, received test"),
        ("none", {}, "those of train, received none"),
        ("key", {"train": TRAIN, "dev": TEST}, "once, received train, dev"),
        (
            "twice",
            {"train": TRAIN, "val": TEST, "valid": TEST},
            "at most once, received train, val, valid",
        ),
        ("nan", TRAIN * np.nan, "values .* received nan to nan"),
        ("between", TRAIN / 256, "received 0.0 to 0.777.* with 0.0039"),
    )
    def test_refuses(self, images, message):
        with self.assertRaisesRegex(UserError, f"(?s){message}"):
            load_arrays(images)

    @parameterized.named_parameters(
        ("short", np.arange(199), "expected 200 for train, .* received 199"),
        ("floats", np.zeros(200), "integers .* float64 for train"),
        ("one_hot", np.zeros((200, 10), int), r"shape \(200, 10\) of int64"),
        ("words", ["cat"] * 200, "numbers for train, received a list"),
        ("pair", (np.arange(200), np.arange(4)), "expected 0 for test, .* 4"),
    )
    def test_labels_that_do_not_go_with_them(self, labels, message):
        with self.assertRaisesRegex(UserError, f"labels: {message}|{message}"):
            load_arrays(TRAIN, labels)

    def test_more_than_memory_holds(self):
        broadcast = np.broadcast_to(np.uint8(1), (2**20, 64, 64))
        with self.assertRaisesRegex(
            UserError,
            "at most 2,147,483,648 pixels .* received 4,294,967,296",
        ):
            load_arrays(broadcast)
