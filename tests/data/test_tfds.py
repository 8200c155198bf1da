import pathlib
import time
import urllib.error
import warnings
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_tf.config import SPLITS
from vae_tf.data import cache, splits
from vae_tf.data import tfds as tfds_source
from vae_tf.data.disk_images import DiskImages
from vae_tf.data.resizing import resized
from vae_tf.settings import UserError


def load(name, data_dir=None, image_size=None, channels=None):
    return tfds_source.load_tfds(name, data_dir, image_size, channels)


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

    def _generate_examples(self, count):
        generator = np.random.default_rng(count)
        for number in range(count):
            # Of 3 x 4, 4 x 5, .. pixels, no two images alike.
            shape = (3 + number % 4, 4 + number % 4, 1)
            image = generator.integers(0, 256, shape).astype(np.uint8)
            image[0, 0] = number
            yield number, {"picture": image, "kind": number % 5}


class TinyAlpha(Tiny):
    SHAPE = (4, 4, 4)

    def _generate_examples(self, count):
        image = np.zeros(self.SHAPE, np.uint8)
        image[:, :2, 3] = 255  # black at the left, nothing at the right
        for number in range(count):
            yield number, {"picture": image, "kind": 0}


class TinyDeep(Tiny):
    def _info(self):
        picture = tfds.features.Image(shape=self.SHAPE, dtype=np.uint16)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"picture": picture})
        )


class TfdsSourceTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.cache = pathlib.Path(self.create_tempdir().full_path)
        self.enter_context(
            mock.patch.object(cache, "_directory", lambda: self.cache)
        )

    def prepared(self, builder_class):
        """A data directory that holds the dataset."""
        data_dir = self.create_tempdir().full_path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder_class(data_dir=data_dir).download_and_prepare()
        return data_dir

    def test_prepared_dataset(self):
        for builder_class, levels in ((TinyGrey, 256), (TinyBinary, 2)):
            data_dir = self.prepared(builder_class)
            source = load(builder_class.name, data_dir)
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

    def test_a_second_start_decodes_nothing(self):
        data_dir = self.prepared(TinyGrey)
        first = load("tiny_grey", data_dir)
        with mock.patch.object(
            tfds_source, "_examples", side_effect=AssertionError
        ):
            second = load("tiny_grey", data_dir)
            for split in SPLITS:
                self.assertAllEqual(second.images[split], first.images[split])
                self.assertAllEqual(second.labels[split], first.labels[split])
            # Another shape is another file, and so is other data.
            with self.assertRaises(AssertionError):
                load("tiny_grey", data_dir, channels=3)
            (record,) = pathlib.Path(data_dir).rglob("*.tfrecord*")
            record.write_bytes(record.read_bytes()[:-1])
            with self.assertRaises(AssertionError):
                load("tiny_grey", data_dir)
        self.assertLen(list(self.cache.iterdir()), 1)

    def test_streaming_gives_what_memory_gives(self):
        for builder_class, *asked in (
            (TinyGrey, None, None),
            (TinyGrey, None, 3),
            (TinyVarying, 5, None),
        ):
            data_dir = self.prepared(builder_class)
            loaded = []
            for limit in (2**30, 0):
                with mock.patch.object(splits, "MEMORY_LIMIT", limit):
                    loaded.append(load(builder_class.name, data_dir, *asked))
            memory, disk = loaded
            for split in SPLITS:
                self.assertIsInstance(disk.images[split], DiskImages)
                self.assertEqual(
                    disk.images[split].shape, memory.images[split].shape
                )
                self.assertAllEqual(disk.images[split][:], memory.images[split])
                self.assertAllEqual(disk.labels[split], memory.labels[split])

    def test_a_second_start_from_disk_decodes_nothing(self):
        for builder_class, files in ((TinyGrey, 3), (TinyBinary, 6)):
            data_dir = self.prepared(builder_class)
            with mock.patch.object(splits, "MEMORY_LIMIT", 0):
                first = load(builder_class.name, data_dir)
                self.assertLen(list(self.cache.iterdir()), files)
                with mock.patch.object(
                    tfds_source, "_examples", side_effect=AssertionError
                ):
                    second = load(builder_class.name, data_dir)
                for path in self.cache.iterdir():
                    path.unlink()
            self.assertEqual(second.levels, first.levels)
            for split in SPLITS:
                self.assertEqual(
                    second.images[split].path, first.images[split].path
                )
                self.assertAllEqual(second.labels[split], first.labels[split])

    def test_every_shard_is_read(self):
        data_dir = self.create_tempdir().full_path
        config = tfds.download.DownloadConfig(num_shards=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TinyGrey(data_dir=data_dir).download_and_prepare(
                download_config=config
            )
        one, three = (
            load("tiny_grey", path)
            for path in (self.prepared(TinyGrey), data_dir)
        )
        for split in SPLITS:  # The shards are parts of one sequence.
            self.assertAllEqual(one.images[split], three.images[split])
            self.assertAllEqual(one.labels[split], three.labels[split])

    def test_other_files_than_records_are_refused(self):
        data_dir = self.create_tempdir().full_path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TinyGrey(
                data_dir=data_dir, file_format="array_record"
            ).download_and_prepare()
        with self.assertRaisesRegex(
            UserError, "TFRecord .* 'tiny_grey' as array_record"
        ):
            load("tiny_grey", data_dir)

    def test_images_of_many_sizes_are_resized(self):
        source = load("tiny_varying", self.prepared(TinyVarying), 5, 3)
        self.assertEqual(source.images["train"].shape, (48, 5, 5, 3))
        examples = TinyVarying._generate_examples(TinyVarying, 60)
        expected = {
            (resized(example["picture"], 5, 3).tobytes(), example["kind"])
            for _, example in examples
        }
        ours = {
            (image.tobytes(), int(label))
            for split in SPLITS
            for image, label in zip(source.images[split], source.labels[split])
        }
        self.assertEqual(ours, expected)

    def test_images_of_many_sizes_need_a_size(self):
        data_dir = self.create_tempdir().full_path
        with self.assertRaisesRegex(
            UserError,
            r"--image_size: .* 'tiny_varying' .*\(None, None, 1\).* None",
        ):
            load("tiny_varying", data_dir)

    def test_channels_alone_leave_the_size(self):
        data_dir = self.prepared(TinyGrey)
        grey, colour = (
            load("tiny_grey", data_dir),
            load("tiny_grey", data_dir, channels=3),
        )
        self.assertAllEqual(
            colour.images["train"], np.repeat(grey.images["train"], 3, axis=-1)
        )

    def test_transparent_images_are_laid_over_white(self):
        source = load("tiny_alpha", self.prepared(TinyAlpha))
        expected = np.full((48, 4, 4, 3), 255)
        expected[:, :, :2] = 0
        self.assertAllEqual(source.images["train"], expected)

    def test_images_as_stored_are_not_touched(self):
        data_dir = self.prepared(TinyGrey)
        with mock.patch.object(
            tfds_source, "resized", side_effect=AssertionError
        ):
            load("tiny_grey", data_dir)
            load("tiny_grey", data_dir, 4, 1)  # what they are already

    def test_memory_is_that_of_the_resized_images(self):
        data_dir = self.prepared(TinyGrey)
        with mock.patch.object(splits, "MEMORY_LIMIT", 60 * 4 * 4):
            self.assertIsInstance(
                load("tiny_grey", data_dir).images["train"], np.ndarray
            )
            self.assertIsInstance(
                load("tiny_grey", data_dir, 5).images["train"], DiskImages
            )

    def test_pixels_of_more_than_a_byte_are_refused(self):
        with self.assertRaisesRegex(
            UserError, "expected uint8 images, received 'tiny_deep' .*uint16"
        ):
            load("tiny_deep", self.create_tempdir().full_path, 4)

    def test_unknown_dataset(self):
        for name in (
            "mnits",
            "mnist:9.9.9",
            "mnist/9.9.9",
            "mnist/size=3",
            "no such/thing",
            "",
        ):
            with self.assertRaisesRegex(
                UserError,
                "--dataset: expected a TFDS image dataset, 'digits', a folder "
                "of images or an .npz of arrays, received "
                f"'{name}' \\([^\n]+\\)",
            ):
                load(name)

    def test_datasets_of_a_namespace_are_refused_at_once(self):
        for name in ("huggingface:mnist", "kubric:movi_a", "x:y/z:1.0.0"):
            with (
                mock.patch.object(tfds, "builder", side_effect=AssertionError),
                self.assertRaisesRegex(
                    UserError,
                    f"received '{name}' .the namespace {name.split(':')[0]} is "
                    "not read",
                ),
            ):
                load(name)

    def test_a_version_as_tfds_reads_and_writes_it(self):
        data_dir = self.prepared(TinyGrey)
        expected = load("tiny_grey", data_dir)
        for name in ("tiny_grey:1.0.0", "tiny_grey/1.0.0"):
            source = load(name, data_dir)
            self.assertEqual(source.name, name)
            self.assertEqual(source.variant, expected.variant)
            self.assertAllEqual(source.images["test"], expected.images["test"])
        self.assertTrue(tfds_source.is_known("mnist/3.0.1"))
        self.assertTrue(tfds_source.is_known("mnist"))
        self.assertFalse(tfds_source.is_known("crops/3.0.1"))

    def test_a_dataset_without_images(self):
        with self.assertRaisesRegex(UserError, "image feature, .* 'titanic'"):
            load("titanic", self.create_tempdir().full_path)

    def test_out_of_reach_is_said_within_seconds(self):
        began = time.monotonic()
        with (
            no_network(),
            self.assertRaisesRegex(
                UserError, "--dataset: .* received 'mnist' .*no network here"
            ),
        ):
            load("mnist", self.create_tempdir().full_path)
        self.assertLess(time.monotonic() - began, 10)


def no_network():
    return mock.patch(
        "urllib.request.urlopen",
        side_effect=urllib.error.URLError("no network here"),
    )
