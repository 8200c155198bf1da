import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf

from vae_tf.data import cache


class CacheTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "new"
        self.enter_context(
            mock.patch.dict("os.environ", XDG_CACHE_HOME=str(self.directory))
        )
        self.made = 0

    def make(self):
        self.made += 1
        images = np.arange(3000, dtype=np.uint8).reshape(3, 1000)
        return {"train/images": images, "train/labels": np.arange(3)}

    def test_is_made_once(self):
        for _ in range(3):
            arrays = cache.cached("key", self.make)
            for name, array in self.make().items():
                self.assertAllEqual(arrays[name], array)
                self.assertEqual(arrays[name].dtype, array.dtype)
            self.made -= 1
        self.assertEqual(self.made, 1)
        cache.cached("other", self.make)
        self.assertEqual(self.made, 2)

    def test_what_is_damaged_is_made_anew(self):
        expected = cache.cached("key", self.make)
        (file,) = self.directory.rglob("*.npz")
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[1000] ^= 1
        for content in (bytes(flipped), whole[:-100], b""):
            file.write_bytes(content)
            with self.assertWarnsRegex(UserWarning, "is damaged"):
                arrays = cache.cached("key", self.make)
            self.assertAllEqual(
                arrays["train/images"], expected["train/images"]
            )
            self.assertEqual(file.read_bytes(), whole)

    def test_works_where_nothing_can_be_written(self):
        self.directory.write_text("a file")
        with self.assertWarnsRegex(UserWarning, "nothing is kept"):
            arrays = cache.cached("key", self.make)
        self.assertEqual(arrays["train/images"].shape, (3, 1000))

    def test_a_key_is_of_words_and_contents(self):
        file = pathlib.Path(self.create_tempdir().full_path) / "record"
        file.write_text("one")
        keys = {cache.key_of(("a", 1), [file])}
        keys.add(cache.key_of(("a", 2), [file]))
        file.write_text("two")
        keys.add(cache.key_of(("a", 1), [file]))
        self.assertLen(keys, 3)
        self.assertIn(cache.key_of(("a", 1), [file]), keys)
