import os
import pathlib

import numpy as np
import tensorflow as tf

from vae_tf.data import files


class FilesTest(tf.test.TestCase):
    def test_a_reader_sees_the_old_file_or_the_new_one(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        path = directory / "file.txt"
        path.write_text("old")
        with self.assertRaises(KeyboardInterrupt):
            with files.written_atomically(path) as temporary:
                temporary.write_text("half")
                raise KeyboardInterrupt
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(os.listdir(directory), ["file.txt"])
        with files.written_atomically(path) as temporary:
            temporary.write_text("new")
            self.assertEqual(path.read_text(), "old")
        self.assertEqual(path.read_text(), "new")

    def test_what_killed_writers_left_is_swept_up(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        (directory / "deep").mkdir()
        kept = ["file.txt", ".hidden", "deep/.lock", f".{'0' * 31}-x.npz"]
        left = [f".{'0' * 32}-x.npz", f"deep/.{'af' * 16}-file.txt"]
        fresh = f"deep/.{'1' * 32}-being-written.npz"
        for name in (*kept, *left, fresh):
            (directory / name).write_text("half")
            if name != fresh:
                os.utime(directory / name, (0, 0))
        files.sweep(directory)
        found = (path for path in directory.rglob("*") if path.is_file())
        self.assertSameElements(
            [str(path.relative_to(directory)) for path in found],
            [*kept, fresh],
        )

    def test_arrays_are_unpacked_up_to_a_limit(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "arrays.npz"
        zeros = np.zeros(10**6, np.uint8)
        np.savez(path, zeros=zeros)
        self.assertAllEqual(files.unpacked(path)["zeros"], zeros)
        np.savez_compressed(path, zeros=zeros)
        self.assertAllEqual(files.unpacked(path, 2 * 10**6)["zeros"], zeros)
        for limit in (None, 10**6):
            with self.assertRaisesRegex(ValueError, "1,000,128 bytes"):
                files.unpacked(path, limit)
        content = bytearray(path.read_bytes())
        for place in range(0, len(content), 97):
            content[place] ^= 1
        path.write_bytes(content)
        with self.assertRaises(ValueError):
            files.unpacked(path, 2 * 10**6)
