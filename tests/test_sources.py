import pathlib
import time
import urllib.error
import warnings
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_tf import sources
from vae_tf.config import SPLITS, UserError


def images_of(count, scale):
    """Distinct uint8 images [count, 4, 4, 1] from 0 to `scale`."""
    generator = np.random.default_rng(count)
    return generator.integers(0, scale + 1, (count, 4, 4, 1)).astype(np.uint8)


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Its subclasses are datasets that TFDS knows by name."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = pathlib.Path(
        __file__
    ).parent  # TFDS looks for it, and files in it.
    SHAPE, SCALE, SPLITS = (4, 4, 1), 255, {"train": 60}
    LABELLED = True

    def _info(self):
        features = {"picture": tfds.features.Image(shape=self.SHAPE)}
        if self.LABELLED:
            features["kind"] = tfds.features.ClassLabel(num_classes=5)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            name: self._generate_examples(n) for name, n in self.SPLITS.items()
        }

    def _generate_examples(self, count):
        for number, image in enumerate(images_of(count, self.SCALE)):
            example = {"picture": image}
            if self.LABELLED:
                example["kind"] = number % 5
            yield number, example


class TinyGrey(Tiny):
    pass


class TinyBinary(Tiny):
    SCALE, LABELLED = 1, False
    SPLITS = {"train": 40, "validation": 20, "test": 30}


class TinyVarying(Tiny):
    SHAPE = (None, None, 1)


class SourcesTest(tf.test.TestCase):
    def prepared(self, builder_class):
        """A data directory that holds the dataset."""
        data_dir = self.create_tempdir().full_path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder_class(data_dir=data_dir).download_and_prepare()
        return data_dir

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

    def test_missing_splits_are_the_same_cut_everywhere(self):
        rows = sources._split_rows({"train": 30})
        self.assertEqual({pool for pool, _ in rows.values()}, {"train"})
        # Written down once: another machine, NumPy or year must agree.
        self.assertAllEqual(rows["test"][1], TEST_ROWS_OF_30)
        self.assertAllEqual(rows["validation"][1], VALIDATION_ROWS_OF_30)
        every = np.concatenate([chosen for _, chosen in rows.values()])
        self.assertAllEqual(np.sort(every), np.arange(30))

    def test_splits_that_exist_stay(self):
        rows = sources._split_rows({"train": 20, "test": 9})
        self.assertEqual(rows["test"], ("test", slice(None)))
        self.assertLen(rows["validation"][1], 2)
        self.assertLen(rows["train"][1], 18)

    def test_prepared_dataset(self):
        for builder_class, levels in ((TinyGrey, 256), (TinyBinary, 2)):
            data_dir = self.prepared(builder_class)
            source = sources.load_source(builder_class.name, data_dir)
            self.assertEqual(source.levels, levels)
            self.assertIn("1.0.0", source.variant)
            stored = np.concatenate(
                [
                    images_of(n, builder_class.SCALE)
                    for n in builder_class.SPLITS.values()
                ]
            )
            every = np.concatenate([source.images[split] for split in SPLITS])
            self.assertEqual(
                sorted(image.tobytes() for image in every),
                sorted(image.tobytes() for image in stored),
            )
            self.assertEqual(source.labels["test"] is None, levels == 2)

    def test_streaming_gives_what_memory_gives(self):
        data_dir = self.prepared(TinyGrey)
        loaded = []
        for limit in (2**30, 0):
            with mock.patch.object(sources, "MEMORY_LIMIT", limit):
                loaded.append(sources.load_source("tiny_grey", data_dir))
        memory, stream = loaded
        for split in SPLITS:
            self.assertIsInstance(stream.images[split], tf.data.Dataset)
            self.assertAllEqual(
                list(stream.images[split]), memory.images[split]
            )
            self.assertAllEqual(
                list(stream.labels[split]), memory.labels[split]
            )
            self.assertLen(memory.images[split], len(stream.images[split]))

    def test_images_of_many_sizes_are_refused(self):
        data_dir = self.create_tempdir().full_path
        with self.assertRaisesRegex(
            UserError, r"one size, .*\(None, None, 1\)"
        ):
            sources.load_source("tiny_varying", data_dir)

    def test_unknown_dataset(self):
        for name in ("mnits", "mnist:9.9.9", "no such/thing"):
            with self.assertRaisesRegex(
                UserError,
                f"--dataset: expected a TFDS image .* received '{name}'",
            ):
                sources.load_source(name, None)

    def test_too_few_images_to_cut(self):
        with self.assertRaisesRegex(
            UserError, "at least 10 images, received 9"
        ):
            sources._split_rows({"train": 9})

    def test_a_dataset_without_images(self):
        with self.assertRaisesRegex(UserError, "image feature, .* 'titanic'"):
            sources.load_source("titanic", self.create_tempdir().full_path)

    def test_out_of_reach_is_said_within_seconds(self):
        began = time.monotonic()
        with (
            self.no_network(),
            self.assertRaisesRegex(
                UserError, "--dataset: .* received 'mnist' .*no network here"
            ),
        ):
            sources.load_source("mnist", self.create_tempdir().full_path)
        self.assertLess(time.monotonic() - began, 10)

    def test_unset_falls_back_to_digits_loudly(self):
        with (
            self.no_network(),
            self.assertWarnsRegex(UserWarning, "8x8 digits .*no network here"),
        ):
            source = sources.load_source(None, self.create_tempdir().full_path)
        self.assertEqual(source.name, "digits")

    def no_network(self):
        return mock.patch.object(
            sources.urllib.request,
            "urlopen",
            side_effect=urllib.error.URLError("no network here"),
        )


TEST_ROWS_OF_30 = [3, 13, 19]
VALIDATION_ROWS_OF_30 = [11, 14, 26]
