import os
import pathlib

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
