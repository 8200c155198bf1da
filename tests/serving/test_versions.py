import errno
import os
import pathlib
import warnings
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
        self.assertEqual(
            list(versions.published(self.directory)), [1, 3, 7, 8, 9]
        )
        self.assertLen(os.listdir(self.directory), 5)

    def test_only_numbers_are_versions(self):
        for name in ("10", "²", ".unpublished-12", "latest", "-3"):
            (self.directory / name).mkdir(parents=True)
        self.assertEqual(list(versions.published(self.directory)), [10])

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
        for version in (0, "5", True, 2**63):
            with self.assertRaisesRegex(
                vae_tf.UserError, "--version: expected an integer >= 1 and <="
            ):
                versions.require_unused(self.directory, version)

    def test_a_version_is_what_a_server_takes_as_one(self):
        for name in ("0", "007", "9", "009", f"{2**63 - 1}", f"{2**63}"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "5").write_text("a file")
        found = versions.published(self.directory)
        self.assertEqual(
            [(number, path.name) for number, path in found.items()],
            [(0, "0"), (7, "007"), (9, "9"), (2**63 - 1, f"{2**63 - 1}")],
        )
        # Each number is taken, whatever is called so.
        for version, name in ((7, "007"), (5, "5")):
            message = f"received {version}, which is there as '{name}'"
            with self.assertRaisesRegex(vae_tf.UserError, message):
                versions.require_unused(self.directory, version)
        versions.require_unused(self.directory, 3)
        with self.assertRaisesRegex(vae_tf.UserError, "the highest there can"):
            self.publish()

    def test_warns_in_one_line_of_what_is_no_version(self):
        versions.warn_of_others(self.directory)  # There is none yet.
        for name in ("007", "7", f"{2**63}", "latest"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "5").write_text("a file")
        with self.assertWarns(UserWarning) as caught:
            versions.warn_of_others(self.directory)
        self.assertLen(caught.warnings, 1)
        self.assertRegex(
            str(caught.warning),
            r"^--export_dir: .* no version: 5 \(no directory.*\), 007 \(7 is "
            rf"there, too\), {2**63} \(beyond 2\^63 - 1\)\.$",
        )
        for name in ("5", "007", f"{2**63}"):
            os.rename(self.directory / name, self.directory / f"{name} old")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            versions.warn_of_others(self.directory)

    def test_the_next_version_is_past_a_file_s_number(self):
        self.publish(4)
        (self.directory / "5").write_text("a file")
        self.assertEqual(self.publish().name, "6")
        self.assertEqual((self.directory / "5").read_text(), "a file")

    def test_a_file_that_comes_meanwhile_is_not_overwritten(self):
        rename, rivals = os.rename, ["1"]

        def slower(source, target):
            if rivals:
                (self.directory / rivals.pop()).write_text("a file")
            rename(source, target)

        with mock.patch.object(os, "rename", slower):
            self.assertEqual(self.publish().name, "2")

    def test_refuses_what_is_no_directory_of_this_machine(self):
        for export_dir, message in (
            ("", "received ''"),
            (None, "received None"),
            (3, "received 3"),
            ("s3://bucket/x", "received 's3://bucket/x' .*aws s3 cp"),
            (pathlib.Path("gs://bucket"), "'gs:/bucket' .*gcloud storage cp"),
            ("file:///a/b", "write '/a/b'"),
        ):
            with self.assertRaisesRegex(
                vae_tf.UserError, f"^--export_dir: expected .*{message}"
            ):
                versions.place(export_dir)
        for export_dir in ("a", "/a:/b", "C:/a", "a/s3:/b"):
            self.assertEqual(
                versions.place(export_dir), pathlib.Path(export_dir)
            )

    def test_the_workplace_is_hidden_and_goes(self):
        with (
            self.assertRaises(KeyboardInterrupt),
            versions.workplace(self.directory) as hidden,
        ):
            self.assertEqual(list(versions.published(self.directory)), [])
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
        self.assertEqual(list(versions.published(self.directory)), [5, 9])
        # The one just written stays, old as it is.
        self.publish(3)
        self.assertEqual(versions.prune(self.directory, 1, also=3), [5])
        self.assertSameElements(os.listdir(self.directory), ["3", "9"])
        self.assertEqual(versions.prune(self.directory, 5, also=3), [])

    def test_pruning_takes_a_version_by_the_name_it_has(self):
        for name in ("007", "7"):
            (self.directory / name).mkdir(parents=True)
        elsewhere = self.directory.with_name("elsewhere")
        elsewhere.mkdir()
        (elsewhere / "saved_model.pb").write_text("bundle")
        (self.directory / "6").symlink_to(elsewhere)
        for name in ("5", "07"):
            (self.directory / name).write_text("a file")
        self.publish(8)
        removed = versions.prune(self.directory, 1, also=8)
        self.assertEqual(removed, [6, 7, 7])
        # A file is no version, and what a link led to is another's.
        self.assertSameElements(os.listdir(self.directory), ["5", "07", "8"])
        self.assertEqual(os.listdir(elsewhere), ["saved_model.pb"])

    def test_what_cannot_be_removed_stays_and_is_said(self):
        for version in (1, 2):
            self.publish(version)

        def refused(source, target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        with (
            mock.patch.object(os, "rename", refused),
            self.assertWarnsRegex(UserWarning, "--keep: .*/1 was not removed"),
        ):
            self.assertEqual(versions.prune(self.directory, 1, also=2), [])
        self.assertSameElements(os.listdir(self.directory), ["1", "2"])
