import os
import pathlib
import unittest
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import written

import vae_tf
from vae_tf.config import SPLITS
from vae_tf.data import disk_images
from vae_tf.data import pipeline as data_module
from vae_tf.data.sources import Source


def source(levels=5, count=50, streamed=False):
    """A source of random grey images [4, 4, 1], split 30/10/10."""
    generator = np.random.default_rng(levels)
    images = generator.integers(0, levels, (count, 4, 4, 1)).astype(np.uint8)
    labels = np.arange(count)
    rows = {
        "train": slice(0, 30),
        "validation": slice(30, 40),
        "test": slice(40, 50),
    }
    images = {split: images[rows[split]] for split in rows}
    labels = {split: labels[rows[split]] for split in rows}
    if streamed:
        images = {split: written(x) for split, x in images.items()}
    return Source("random", "random", levels, images, labels)


RECORDED_MEAN = 0.5009921025848598  # of the dequantised test images


def stack(dataset):
    return np.concatenate(list(dataset.as_numpy_iterator()))


class DataTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        ("grey", 5, "none", False), ("binary", 2, "none", True)
    )
    def test_values_are_in_the_unit_interval_whatever_the_range(
        self, levels, binarization, streamed
    ):
        data = vae_tf.Data(
            source(levels, streamed=streamed), binarization, 8, 0
        )
        images = stack(data.test)
        self.assertEqual(images.dtype, np.float32)
        self.assertEqual((images.min(), images.max()), (0.0, 1.0))
        raw = source(levels).images["test"]
        self.assertAllClose(images * (levels - 1), raw)

    @parameterized.named_parameters(("memory", False), ("streamed", True))
    def test_each_epoch_sees_every_image_once_in_a_new_order(self, streamed):
        data = vae_tf.Data(source(streamed=streamed), "none", 8, seed=3)
        epochs = [stack(data.train) for _ in range(2)]
        stored = stack(data.in_order("train"))
        self.assertNotAllEqual(epochs[0], epochs[1])
        for images in epochs:
            self.assertEqual(
                sorted(x.tobytes() for x in images),
                sorted(x.tobytes() for x in stored),
            )
        self.assertLen(data.train, 4)
        self.assertEqual([len(x) for x in data.train], [8, 8, 8, 6])

    def test_a_pass_over_the_disk_mixes_pieces_from_all_of_it(self):
        # 30 images of 16 bytes in pieces of 4, of windows of 18.
        data = vae_tf.Data(source(256, streamed=True), "none", 8, 0)
        stored = stack(data.in_order("train"))
        with (
            mock.patch.object(disk_images, "PIECE", 70),
            mock.patch.object(data_module, "WINDOW", 290),
        ):
            data = vae_tf.Data(data.source, "none", 8, 0)
            orders = []
            for _ in range(4):
                batches = list(data.train)
                self.assertEqual([len(x) for x in batches], [8, 8, 8, 6])
                images = np.concatenate(batches)
                orders.append(
                    [
                        int(np.argwhere((stored == x).all((1, 2, 3)))[0, 0])
                        for x in images
                    ]
                )
        windows = []
        for order in orders:
            self.assertCountEqual(order, range(30))
            # All of a piece is in a window, but for the one cut by its end.
            pieces = [{row // 4 for row in w} for w in (order[:18], order[18:])]
            self.assertLen(pieces[0] & pieces[1], 1)
            windows.append(sorted(order[:18]))
            self.assertNotEqual(order[:18], windows[-1])
        # Other pieces each time, and not those that lie side by side.
        self.assertGreater(len(set(map(tuple, windows))), 2)

    @parameterized.named_parameters(("memory", False), ("streamed", True))
    def test_an_epoch_is_a_function_of_seed_and_number(self, streamed):
        tf.random.set_seed(0)  # No global seed takes part.
        data = vae_tf.Data(source(streamed=streamed), "dynamic", 8, seed=3)
        epochs = [stack(data.train) for _ in range(3)]
        tf.random.set_seed(1)
        again = vae_tf.Data(source(streamed=streamed), "dynamic", 8, seed=3)
        again.start_epoch(2)
        self.assertAllEqual(stack(again.train), epochs[2])
        other = vae_tf.Data(source(streamed=streamed), "dynamic", 8, seed=4)
        self.assertNotAllEqual(stack(other.train), epochs[0])

    def test_evaluation_bits_are_drawn_once_and_for_all(self):
        bits = [
            stack(vae_tf.Data(source(streamed=s), b, size, seed).test)
            for s, b, size, seed in [
                (False, "dynamic", 8, 0),
                (False, "static", 3, 1),
                (True, "dynamic", 4, 2),
            ]
        ]
        self.assertAllInSet(bits[0], [0.0, 1.0])
        self.assertAllEqual(bits[0], bits[1])
        self.assertAllEqual(bits[0], bits[2])
        streamed = vae_tf.Data(source(streamed=True), "dynamic", 4, 2)
        self.assertLen(streamed.test, 3)
        # Written down once: another machine, NumPy or year must agree.
        self.assertEqual(bits[0].astype(int).ravel()[:16].tolist(), FIRST_BITS)

    def test_splits_have_noise_of_their_own(self):
        grey = np.full((10, 4, 4, 1), 2, np.uint8)
        images = dict.fromkeys(("train", "validation", "test"), grey)
        labels = dict.fromkeys(images)
        data = vae_tf.Data(Source("x", "x", 5, images, labels), "dynamic", 5, 0)
        self.assertNotAllEqual(stack(data.validation), stack(data.test))

    @parameterized.named_parameters(
        ("once", lambda data: data.in_order("train")),
        ("dynamic", lambda data: data.train),
    )
    def test_bits_have_the_grey_level_as_their_mean(self, read):
        grey = np.full((2000, 4, 4, 1), 3, np.uint8)
        images = {"train": grey, "validation": grey[:1], "test": grey[:1]}
        labels = dict.fromkeys(images)
        data = vae_tf.Data(
            Source("x", "x", 11, images, labels), "dynamic", 64, 0
        )
        bits = stack(read(data))
        error = 5 * np.sqrt(0.3 * 0.7 / bits.size)
        self.assertAllClose(bits.mean(), 0.3, atol=error)
        # White stays white and black stays black.
        for level, expected in ((0, 0.0), (10, 1.0)):
            images["train"] = np.full((100, 4, 4, 1), level, np.uint8)
            data = vae_tf.Data(
                Source("x", "x", 11, images, labels), "dynamic", 64, 0
            )
            self.assertAllInSet(stack(read(data)), [expected])

    @parameterized.named_parameters(("memory", False), ("streamed", True))
    def test_static_training_bits_are_the_same_every_epoch(self, streamed):
        data = vae_tf.Data(source(streamed=streamed), "static", 8, 0)
        epochs = [
            sorted(x.tobytes() for x in stack(data.train)) for _ in range(2)
        ]
        self.assertEqual(epochs[0], epochs[1])
        stored = sorted(x.tobytes() for x in stack(data.in_order("train")))
        self.assertEqual(epochs[0], stored)

    def test_threshold_is_half(self):
        data = vae_tf.Data(source(5), "threshold", 8, 0)
        raw = source(5).images["test"]
        self.assertAllEqual(stack(data.test), (raw / 4 >= 0.5) * 1.0)

    @parameterized.named_parameters(("memory", False), ("streamed", True))
    def test_labels_stand_beside_the_images(self, streamed):
        data = vae_tf.Data(source(streamed=streamed), "none", 4, 0)
        self.assertAllEqual(data.labels("test"), np.arange(40, 50))
        self.assertAllClose(
            stack(data.test) * 4, source().images["test"].astype(np.float32)
        )

    @parameterized.named_parameters(("memory", False), ("streamed", True))
    def test_limit(self, streamed):
        data = vae_tf.Data(source(streamed=streamed), "dynamic", 8, 0)
        every = stack(data.test)
        for size, limit in ((3, 5), (5, 5), (20, 5), (4, 10), (2, 1000)):
            some = data.in_order("test", size, limit)
            sizes = [len(batch) for batch in some]
            self.assertAllEqual(stack(some), every[:limit])
            self.assertLessEqual(max(sizes), size)
            self.assertEqual(set(sizes[:-1]) - {size}, set())
            self.assertLen(some, -(-min(limit, len(every)) // size))

            # As a compiled step makes them.
            elements, images_of, begin = some.in_step
            for given in (elements, begin()):
                made = [images_of(element) for element in given]
                self.assertAllEqual(np.concatenate(made), every[:limit])

    @parameterized.product(streamed=(False, True), first=(0, 2))
    def test_a_pass_begun_by_itself_is_that_of_the_dataset(
        self, streamed, first
    ):
        data = vae_tf.Data(source(streamed=streamed), "dynamic", 8, seed=3)
        elements, images_of, begin = data.after(first).in_step
        passes = []
        for given in (elements, begin):
            data.start_epoch(4)
            for _ in range(2):  # each one further than the last
                images = given() if callable(given) else given
                self.assertEqual(images.element_spec, elements.element_spec)
                passes.append(stack(images.map(images_of)))
        data.start_epoch(4)
        self.assertAllEqual(passes[0], stack(data.after(first)))
        self.assertAllEqual(passes[2:], passes[:2])
        self.assertNotAllEqual(passes[0], passes[1])

    def test_unset_binarization_is_what_the_likelihood_needs(self):
        data = vae_tf.load_data("digits")
        self.assertEqual(data.binarization, "dynamic")
        self.assertAllInSet(stack(data.train), [0.0, 1.0])
        self.assertEqual(data.image_shape, (8, 8, 1))

    def test_numbers_are_those_of_the_stored_images(self):
        data = vae_tf.Data(source(), "static", 8, seed=3, numbered=True)
        for split, passes in (("train", 2), ("validation", 1)):
            stored = stack(data.in_order(split))
            for _ in range(passes):
                batches = list(getattr(data, split).as_numpy_iterator())
                rows = np.concatenate([batch["row"] for batch in batches])
                images = np.concatenate([batch["image"] for batch in batches])
                self.assertAllEqual(images, stored[rows])
                self.assertAllEqual(np.sort(rows), np.arange(len(stored)))
        made = [
            data.train.in_step.images_of(element)
            for element in data.train.in_step.elements
        ]
        rows = np.concatenate([batch["row"] for batch in made])
        stored = stack(data.in_order("train"))
        self.assertAllEqual(
            np.concatenate([batch["image"] for batch in made]), stored[rows]
        )

    def test_a_numbered_image_has_the_same_bits_in_each_epoch(self):
        self.assertEqual(
            vae_tf.load_data("digits", numbered=True).binarization, "static"
        )
        with self.assertRaisesRegex(
            vae_tf.UserError, "--inference: expected amortized for more images"
        ):
            vae_tf.Data(source(streamed=True), "static", 8, 3, numbered=True)

    @parameterized.named_parameters(
        ("likelihood", {"likelihood": "cauchy"}, "likelihood: expected one of"),
        ("binarization", {"binarization": "dither"}, "binarization: expected"),
        ("batch_size", {"batch_size": 0}, "batch_size: expected .* received 0"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            vae_tf.load_data("digits", **arguments)

    def test_the_description_tells_data_apart(self):
        one, same = (vae_tf.Data(source(), "none", n, n) for n in (8, 4))
        self.assertEqual(one.describe(), same.describe())
        other = source()
        other.images["test"][0, 0, 0, 0] ^= 1
        changed = vae_tf.Data(other, "none", 8, 0).describe()
        self.assertNotEqual(one.describe()["checksum"], changed["checksum"])


class ArraysTest(tf.test.TestCase):
    IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 3, 1), np.uint8)

    def test_arrays_are_data_like_any_other(self):
        labels = np.arange(30), np.arange(10)
        data = vae_tf.load_data(
            images=(self.IMAGES[:30] / 255, self.IMAGES[30:] / 255),
            labels=labels,
            likelihood="discretized_logistic",
            batch_size=8,
        )
        self.assertEqual(data.source.name, "arrays")
        self.assertEqual(
            data.num_examples, {"train": 27, "validation": 3, "test": 10}
        )
        self.assertAllClose(stack(data.test), self.IMAGES[30:] / 255)
        self.assertAllEqual(data.labels("test"), range(10))
        self.assertLen(data.train, 4)
        # Chosen for the likelihood, and drawn as of any other source.
        grey = vae_tf.load_data(images=self.IMAGES, batch_size=8)
        self.assertEqual(grey.binarization, "dynamic")
        source = Source("x", "arrays", 256, grey.source.images, {})
        self.assertAllEqual(
            stack(grey.test), stack(vae_tf.Data(source, "dynamic", 3, 1).test)
        )
        same = vae_tf.load_data(images=self.IMAGES / np.float32(255))
        self.assertEqual(same.describe(), grey.describe())

    def test_an_npz_and_a_folder_by_their_paths(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "my.npz"
        np.savez(path, images=self.IMAGES)
        expected = vae_tf.load_data(images=self.IMAGES)
        for dataset in (path, str(path)):
            data = vae_tf.load_data(dataset)
            self.assertEqual(data.source.name, str(path))
            self.assertEqual(data.source.variant, "npz my")
            self.assertAllEqual(stack(data.test), stack(expected.test))
        with self.assertRaisesRegex(vae_tf.UserError, "my.npz'.*no such path"):
            vae_tf.load_data(path.parent / "elsewhere" / "my.npz")

    def test_levels(self):
        data = vae_tf.load_data(
            images=self.IMAGES % 5, levels=5, likelihood="normal"
        )
        self.assertEqual(data.describe()["levels"], 5)
        self.assertAllEqual(
            np.floor(5 * stack(data.test)), data.source.images["test"]
        )

    def test_either_a_dataset_or_arrays(self):
        for arguments, message in (
            (
                {"dataset": "digits"},
                "dataset: expected None beside images, .*'d",
            ),
            ({"image_size": 8}, "image_size: expected None beside images"),
            ({"channels": 1}, "channels: expected None beside images, .* 1"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.load_data(images=self.IMAGES, **arguments)
        for name, value in (("labels", [1, 2]), ("levels", 256)):
            with self.assertRaisesRegex(
                vae_tf.UserError, f"{name}: expected None without images, rec"
            ):
                vae_tf.load_data("digits", **{name: value})


@unittest.skipUnless(
    os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist")),
    "needs TFDS_DATA_DIR with mnist and binarized_mnist prepared",
)
class RealDataTest(tf.test.TestCase):
    def test_mnist(self):
        data = vae_tf.load_data("mnist")
        self.assertEqual(
            data.num_examples,
            {"train": 54_000, "validation": 6_000, "test": 10_000},
        )
        self.assertEqual(data.describe()["levels"], 256)
        self.assertLen(data.labels("test"), 10_000)
        # Classes 0 to 9 in their known numbers, with ink as is known of them.
        counts = np.bincount(data.labels("test"))
        self.assertEqual(counts[:3].tolist(), [980, 1135, 1032])
        self.assertAllClose(stack(data.test).mean(), 0.1325, atol=0.001)

    def test_binarized_mnist(self):
        data = vae_tf.load_data("binarized_mnist")
        self.assertEqual(data.describe()["levels"], 2)
        self.assertEqual(data.binarization, "none")
        self.assertEqual(
            data.num_examples,
            {"train": 50_000, "validation": 10_000, "test": 10_000},
        )
        self.assertIsNone(data.labels("test"))
        self.assertAllInSet(stack(data.in_order("test", 500, 500)), [0.0, 1.0])


FIRST_BITS = [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1]


class DequantizationTest(parameterized.TestCase, tf.test.TestCase):
    def data(self, binarization="none", streamed=False, batch=8, seed=0):
        return vae_tf.Data(
            source(streamed=streamed), binarization, batch, seed, "uniform"
        )

    @parameterized.parameters(False, True)
    def test_noise_fills_the_steps_between_the_levels(self, streamed):
        data = self.data(streamed=streamed)
        stored = source().images
        for found, split in (
            (stack(data.test), "test"),
            (stack(data.validation), "validation"),
        ):
            self.assertAllEqual(np.floor(found * 5), stored[split])
            self.assertAllInRange(found, 0.0, 1.0)
            noise = found * 5 - stored[split]
            self.assertAllClose(noise.mean(), 0.5, atol=0.05)
            self.assertAllClose(noise.std(), 12**-0.5, atol=0.05)
            self.assertGreater(len(np.unique(noise)), 150)

    def test_evaluation_pixels_are_drawn_once_and_for_all(self):
        one = stack(self.data().test)
        self.assertAllEqual(one, stack(self.data(batch=3, seed=5).test))
        self.assertAllEqual(one, stack(self.data(streamed=True).test))
        self.assertAllEqual(one[:4], stack(self.data().in_order("test", 3, 4)))
        # Recorded: the same on every machine, today and later.
        self.assertAllClose(one.mean(dtype=np.float64), RECORDED_MEAN, 1e-6)

    @parameterized.parameters(False, True)
    def test_training_draws_anew_in_each_epoch(self, streamed):
        data = self.data(streamed=streamed)
        first, second = stack(data.train), stack(data.train)
        levels = [np.sort(np.floor(x * 5).ravel()) for x in (first, second)]
        self.assertAllEqual(*levels)
        self.assertNotAllClose(np.sort(first.ravel()), np.sort(second.ravel()))
        again = stack(self.data(streamed=streamed).train)
        self.assertAllEqual(first, again)

    def test_a_bit_says_nothing_of_the_noise_above_it(self):
        grey = np.full((500, 4, 4, 1), 2, np.uint8)
        images = dict.fromkeys(SPLITS, grey)
        data = vae_tf.Data(
            Source("x", "x", 5, images, dict.fromkeys(SPLITS)),
            "dynamic",
            50,
            0,
            "uniform",
        )
        for found in (stack(data.train), stack(data.test)):
            bits, noise = np.floor(found * 2), (found * 2) % 1
            correlation = np.corrcoef(bits.ravel(), noise.ravel())[0, 1]
            self.assertLess(abs(correlation), 5 * found.size**-0.5)

    def test_bits_have_two_levels(self):
        found = stack(self.data("static").test)
        bits = stack(vae_tf.Data(source(), "static", 8, 0).test)
        self.assertAllEqual(np.floor(found * 2), bits)
