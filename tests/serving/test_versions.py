import errno
import os
import pathlib
from unittest import mock

import tensorflow as tf

import vae_tf
from vae_tf.serving import versions


class VersionsTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "vae"

    def publish(self, version=None, content="bundle"):
        with versions.workplace(self.directory) as hidden:
            (hidden / "bundle").mkdir()
            (hidden / "bundle/saved_model.pb").write_text(content)
            return versions.publish(hidden / "bundle", self.directory, version)

    def test_versions_count_up_from_the_highest(self):
        for version, expected in (
            (None, "1"),
            (7, "7"),
            (None, "8"),
            (3, "3"),
            (None, "9"),
        ):
            self.assertEqual(self.publish(version).name, expected)
        self.assertEqual(versions.published(self.directory), [1, 3, 7, 8, 9])
        self.assertLen(os.listdir(self.directory), 5)

    def test_only_numbers_are_versions(self):
        for name in ("10", "²", ".unpublished-12", "latest", "-3"):
            (self.directory / name).mkdir(parents=True)
        self.assertEqual(versions.published(self.directory), [10])

    def test_an_existing_version_is_never_overwritten(self):
        self.publish(2, "first")
        with self.assertRaisesRegex(
            vae_tf.UserError, "--version: expected one .* received 2"
        ):
            self.publish(2, "second")
        content = (self.directory / "2/saved_model.pb").read_text()
        self.assertEqual(content, "first")

    def test_of_two_exports_at_once_each_gets_a_number(self):
        rename, rivals = os.rename, [None]

        def slower(source, target):
            if rivals:
                rivals.pop()
                self.publish(content="rival")
            rename(source, target)

        with mock.patch.object(os, "rename", slower):
            path = self.publish(content="ours")
        self.assertEqual(path.name, "2")
        self.assertEqual((path / "saved_model.pb").read_text(), "ours")
        one = self.directory / "1/saved_model.pb"
        self.assertEqual(one.read_text(), "rival")

    def test_refuses_what_is_no_version(self):
        for version in (0, "5", True):
            with self.assertRaisesRegex(
                vae_tf.UserError, "--version: expected"
            ):
                versions.require_unused(self.directory, version)

    def test_the_workplace_is_hidden_and_goes(self):
        with (
            self.assertRaises(KeyboardInterrupt),
            versions.workplace(self.directory) as hidden,
        ):
            self.assertEqual(versions.published(self.directory), [])
            self.assertEqual(hidden.parent, self.directory)
            raise KeyboardInterrupt
        self.assertEmpty(os.listdir(self.directory))

    def test_what_a_killed_export_left_goes_after_a_day(self):
        old, young = self.directory / ".unpublished-a", ".unpublished-b"
        old.mkdir(parents=True)
        (old / "saved_model.pb").write_text("half")
        os.utime(old, (0, 0))
        (self.directory / young).mkdir()
        with versions.workplace(self.directory):
            pass
        self.assertEqual(os.listdir(self.directory), [young])

    def test_a_directory_that_cannot_be_written_is_the_user_s(self):
        self.directory.write_text("a file")
        with (
            self.assertRaisesRegex(vae_tf.UserError, "--export_dir: expected"),
            versions.workplace(self.directory),
        ):
            self.fail("no workplace")

    def test_a_full_disk_is_the_user_s(self):
        directory = self.directory.with_name("full")
        with (
            self.assertRaisesRegex(vae_tf.UserError, "No space left"),
            versions.workplace(directory),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.assertEmpty(os.listdir(directory))

    def test_pruning_keeps_the_highest(self):
        for version in (1, 2, 5, 9):
            self.publish(version)
        self.assertEqual(versions.prune(self.directory, 2, also=9), [1, 2])
        self.assertEqual(versions.published(self.directory), [5, 9])
        # The one just written stays, old as it is.
        self.publish(3)
        self.assertEqual(versions.prune(self.directory, 1, also=3), [5])
        self.assertSameElements(os.listdir(self.directory), ["3", "9"])
        self.assertEqual(versions.prune(self.directory, 5, also=3), [])
