import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import written

from vae_tf.data import cache, disk_images
from vae_tf.settings import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 2, 3), np.uint8)


class DiskImagesTest(parameterized.TestCase, tf.test.TestCase):
    def test_slices_are_those_of_the_array(self):
        images = written(IMAGES)
        self.assertLen(images, 20)
        self.assertEqual(images.shape, IMAGES.shape)
        for part in (
            slice(None),
            slice(3, 9),
            slice(15, 40),
            slice(7, 7),
            slice(19, 20),
        ):
            self.assertAllEqual(images[part], IMAGES[part])
            self.assertEqual(images[part].dtype, np.uint8)

    @parameterized.parameters(0, 18, 50, 2**15)
    def test_chosen_rows(self, gap):
        self.enter_context(mock.patch.object(disk_images, "GAP", gap))
        rows = np.array([0, 1, 5, 6, 7, 19])
        images = written(IMAGES).take(rows)
        self.assertEqual(images.shape, (6, 3, 2, 3))
        for part in (slice(None), slice(1, 4), slice(4, 9)):
            self.assertAllEqual(images[part], IMAGES[rows][part])
        fewer = images.take(np.array([1, 4]))
        self.assertAllEqual(fewer[:], IMAGES[rows[[1, 4]]])


class OnDiskTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "new"
        self.enter_context(
            mock.patch.object(cache, "_directory", lambda: self.directory)
        )

    def on_disk(self, batches, key="key"):
        return disk_images.on_disk(key, 20, (3, 2, 3), lambda: batches)

    def test_is_written_once(self):
        for batches in (np.split(IMAGES, [7, 13]), None):
            self.assertAllEqual(self.on_disk(batches)[:], IMAGES)
        self.assertAllEqual(self.on_disk([255 - IMAGES], "b")[:], 255 - IMAGES)

    def test_what_was_changed_is_written_anew(self):
        self.on_disk([IMAGES])
        path = self.directory / "key"
        for content in (bytes(IMAGES.size), IMAGES.tobytes()[:-1], b""):
            path.write_bytes(content)
            with self.assertWarnsRegex(UserWarning, "images are decoded anew"):
                images = self.on_disk([IMAGES])
            self.assertAllEqual(images[:], IMAGES)

    def test_what_is_not_whole_is_written_anew(self):
        def interrupted():
            yield IMAGES[:5]
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.on_disk(interrupted())
        self.assertEmpty(list(self.directory.iterdir()))
        path = self.on_disk([IMAGES]).path
        path.write_bytes(path.read_bytes()[:-1])
        self.assertAllEqual(self.on_disk([IMAGES])[:], IMAGES)

    def test_no_room(self):
        usage = mock.Mock(free=359)
        with (
            mock.patch("shutil.disk_usage", return_value=usage),
            self.assertRaisesRegex(
                UserError,
                "--dataset: expected .* 360 bytes.* received 359",
            ),
        ):
            self.on_disk(None)
        self.directory.rmdir()
        self.directory.write_text("a file")
        with self.assertRaisesRegex(UserError, "XDG_CACHE_HOME.* File exists"):
            self.on_disk(None)


if __name__ == "__main__":
    tf.test.main()
