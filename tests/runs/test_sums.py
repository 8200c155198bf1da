import hashlib
import os
import pathlib
import subprocess
import threading

import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import sums


class SumsTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.directory / "numbers.txt"

    def write(self, text, name="numbers.txt"):
        with sums.sealed(self.directory / name) as path:
            path.write_text(text)

    def test_what_was_written_is_read(self):
        for text in ("one", "two", ""):
            self.write(text)
            self.write("other", "other.txt")
            self.assertEqual(sums.read(self.path), text.encode())
        self.assertSameElements(
            os.listdir(self.directory), ["numbers.txt", "other.txt", sums.SUMS]
        )
        # As the command of that name reads it.
        subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", sums.SUMS],
            cwd=self.directory,
            check=True,
        )

    @parameterized.parameters("twp", "tw", "", "two\n")
    def test_what_was_changed_is_refused_until_it_is_accepted(self, text):
        self.write("two")
        self.write("other", "other.txt")
        self.path.write_text(text)
        with self.assertRaisesRegex(
            vae_tf.UserError, "numbers.txt: expected what was written .* remove"
        ):
            sums.read(self.path)
        table = self.directory / sums.SUMS
        lines = table.read_text().splitlines(keepends=True)
        self.assertLen(lines, 2)
        table.write_text("".join(x for x in lines if "numbers" not in x))
        self.assertEqual(sums.read(self.path), text.encode())

    def test_a_writer_killed_before_or_after_the_file_took_its_place(self):
        self.write("old")
        table = self.directory / sums.SUMS
        new = hashlib.sha256(b"new").hexdigest()
        table.write_text(f"{table.read_text()}{new}  numbers.txt\n")
        for text in ("old", "new"):
            self.path.write_text(text)
            self.assertEqual(sums.read(self.path), text.encode())
        self.path.write_text("neither")
        with self.assertRaisesRegex(vae_tf.UserError, "another SHA-256"):
            sums.read(self.path)

    def test_a_failed_write_leaves_what_was_there(self):
        self.write("old")
        before = (self.directory / sums.SUMS).read_text()
        with self.assertRaisesRegex(vae_tf.UserError, "received No space left"):
            with sums.sealed(self.path):
                raise OSError(28, "No space left on device")
        self.assertEqual(sums.read(self.path), b"old")
        self.assertEqual((self.directory / sums.SUMS).read_text(), before)

    def test_a_reader_beside_writers_sees_one_of_their_texts(self):
        self.write("text 0")

        def write(name):
            for number in range(30):
                self.write(f"text {number}", name)

        writers = [
            threading.Thread(target=write, args=(name,))
            for name in ("numbers.txt", "numbers.txt", "other.txt")
        ]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            self.assertStartsWith(sums.read(self.path).decode(), "text ")
        for name in ("numbers.txt", "other.txt"):
            self.assertEqual(sums.read(self.directory / name), b"text 29")
        self.assertLen((self.directory / sums.SUMS).read_text().split("\n"), 3)


if __name__ == "__main__":
    tf.test.main()
