import functools
import os
import pathlib
import tempfile
from unittest import mock

import image_files
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.data.conversion import Conversion
from vae_tf.serving import image_bytes, rows

FILES = tf.TensorSpec((None,), tf.string)


@functools.cache
def reader(shape):
    def read(files):
        return image_bytes.levels(files, shape)

    return tf.function(read, [FILES], autograph=False)


def levels(files, shape):
    return [found.numpy() for found in reader(shape)(files)]


class LevelsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (None, 1, (45, 70)), (None, 3, (45, 70)), (28, 1, None), (32, 3, None)
    )
    def test_a_file_is_what_training_reads_of_it(self, size, channels, own):
        # As a folder's images, ten of each, or of those of one size.
        folder = pathlib.Path(self.create_tempdir().full_path)
        files = {
            name: content
            for name, content in image_files.readable().items()
            if own is None
            or name in ("rgb", "alpha", "animated", "palette", "jpeg", "cmyk")
        }
        for split, count in (("train", 10), ("validation", 1), ("test", 1)):
            (folder / split).mkdir()
            for name, content in files.items():
                for number in range(count):
                    (folder / split / f"{name}-{number}.png").write_bytes(
                        content
                    )
        data = vae_tf.load_data(folder, image_size=size, channels=channels)
        stored = data.source.images["test"].astype(int)
        names = sorted(files)
        found, valid = levels([files[name] for name in names], stored.shape[1:])
        self.assertAllEqual(valid, np.ones(len(names), bool))
        for name, ours, theirs in zip(names, found, stored, strict=True):
            # A sum of weighted levels is rounded to one, twice when resized,
            # and float32 may fall on the other side of a half.
            off = np.abs(ours - theirs)
            self.assertLessEqual(off.max(), 1, name)
            self.assertLess(np.mean(off > 0), 0.01, name)
            if own:
                self.assertAllEqual(ours, theirs, name)

    def test_any_ratio(self):
        # Half as high as wide: the middle of what is higher, left as it is.
        image = image_files.noise(40, 40)
        found, _ = levels([image_files.png(image)], (20, 40, 3))
        self.assertAllEqual(found[0], np.asarray(image)[10:30])

    def test_what_is_no_image_spoils_its_row_alone(self):
        good = image_files.readable()
        good = [good["rgb"], good["jpeg"], good["one_bit"]]
        alone, valid = levels(good, (16, 16, 3))
        self.assertAllEqual(valid, [True] * 3)
        bad = image_files.unreadable()
        together, valid = levels(
            [good[0], *bad.values(), good[1], good[2]], (16, 16, 3)
        )
        expected = [True, *[False] * len(bad), True, True]
        self.assertAllEqual(valid, expected, list(bad))
        self.assertAllEqual(together[valid], alone)
        self.assertAllEqual(together[~valid], np.zeros((len(bad), 16, 16, 3)))
        for name, content in bad.items():  # nor where no row is one
            found, valid = levels([content], (16, 16, 3))
            self.assertAllEqual((valid, found.any()), ([False], False), name)

    def test_of_what_is_no_image_the_decoders_print_nothing(self):
        with tempfile.TemporaryFile() as printed:
            usual = os.dup(2)
            os.dup2(printed.fileno(), 2)
            try:
                levels([b"no image"], (16, 16, 3))
            finally:
                os.dup2(usual, 2)
                os.close(usual)
            printed.seek(0)
            self.assertNotIn(b"JPEG", printed.read())

    @parameterized.parameters(image_bytes._png, image_bytes._jpeg)
    def test_pixels_are_decoded_once_the_header_is_read(self, decode):
        spec = tf.TensorSpec((), tf.string)
        traced = tf.function(decode, [spec], autograph=False)
        graph = traced.get_concrete_function().graph
        left, before = [graph.outputs[0].op], set()
        while left:
            op = left.pop()
            if op.type in ("Case", "If", "DecodeJpeg"):  # which decodes
                left += [given.op for given in op.inputs]
                before |= {given.op for given in op.inputs}
            elif op in before or not before:
                more = [given.op for given in op.inputs] + op.control_inputs
                before |= set(more) if before else set()
                left += more
        self.assertIn("expected an image of at most", str(graph.as_graph_def()))
        self.assertTrue(any("assert_less_equal" in op.name for op in before))

    def test_the_limit_is_that_of_its_pixels(self):
        file = image_files.png(image_files.noise(30, 40))
        for limit, expected in ((1200, True), (1199, False)):
            with mock.patch.object(image_bytes, "MAX_PIXELS", limit):
                _, valid = image_bytes.levels(tf.constant([file]), (16, 16, 1))
            self.assertAllEqual(valid, [expected])


class ImagesTest(parameterized.TestCase, tf.test.TestCase):
    """Of one image and of none, 1000 times each."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        image = image_files.noise(8, 8, 1)
        cls.grey = np.asarray(image)[..., np.newaxis] / 255
        cls.files = tf.constant([image_files.png(image), b"no image"] * 1000)

    def images(self, *conversion):
        seeds = tf.range(2000, dtype=tf.int64)
        images = image_bytes.images(
            self.files, rows.keys(seeds), (8, 8, 1), Conversion(*conversion)
        )
        self.assertTrue(np.all(np.isnan(images[1::2])))
        return images[::2].numpy()

    @parameterized.parameters(2, 17, 256)
    def test_as_many_levels_as_training_had(self, count):
        images = self.images(count, "none", "none")
        self.assertAllEqual(images[0], images[-1])
        steps = (count - 1) * images[0]
        self.assertAllClose(steps, np.round(steps), 1e-6)
        self.assertAllLess(
            np.abs(images[0] - self.grey), 0.5 / (count - 1) + 1e-6
        )

    def test_a_threshold(self):
        images = self.images(256, "threshold", "none")
        self.assertAllEqual(images[0], self.grey >= 0.5)
        self.assertAllEqual(images[0], images[-1])

    def test_bits_are_drawn(self):
        images = self.images(256, "dynamic", "none")
        self.assertAllInSet(images, [0.0, 1.0])
        self.assertAllClose(np.mean(images, 0), self.grey, atol=0.07)
        covariance = np.cov(images.reshape(1000, -1).T)
        independent = np.diag((self.grey * (1 - self.grey)).flat)
        self.assertAllClose(covariance, independent, atol=0.05)

    def test_noise_within_a_level(self):
        images = self.images(256, "none", "uniform")
        noise = 256 * images - np.round(255 * self.grey)
        self.assertAllInRange(noise, 0.0, 1.0)
        self.assertAllClose(
            np.mean(noise, 0), np.full((8, 8, 1), 0.5), atol=0.05
        )
        self.assertAllClose(np.std(noise), 12**-0.5, atol=0.01)

    def test_a_row_s_draws_are_those_of_its_seed(self):
        conversion = Conversion(256, "dynamic", "none")
        keys = rows.keys(tf.constant([7, 2, 7, -1], tf.int64))
        files = tf.repeat(self.files[:1], 4)
        one, other, same, _ = image_bytes.images(
            files, keys, (8, 8, 1), conversion
        )
        self.assertAllEqual(one, same)
        self.assertNotAllEqual(one, other)
