"""The version directories that TensorFlow Serving watches: `<export_dir>/1`,
`<export_dir>/2` and so on, of which it serves the highest.

A version appears by one rename, whole, and goes by one, so that a server that
looks at any moment finds a whole bundle or none."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import time

from vae_tf.settings import UserError

HIDDEN = ".unpublished-"  # a server reads names that are numbers only
ABANDONED = 24 * 3600  # seconds after which nobody is at work in there


def published(export_dir: pathlib.Path) -> list[int]:
    """The versions there are, in order."""
    return sorted(
        int(path.name)
        for path in export_dir.iterdir()
        if path.name.isascii() and path.name.isdigit()
    )


@contextlib.contextmanager
def workplace(export_dir: pathlib.Path):
    """A hidden directory beside the versions, removed at the end, as is what
    an interrupted export left a day ago or more.

    Raises:
      UserError: it cannot be made, or there is no room for what is written
        into it.
    """
    hidden = None
    try:
        export_dir.mkdir(parents=True, exist_ok=True)
        for old in export_dir.glob(f"{HIDDEN}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > ABANDONED:
                    shutil.rmtree(old, ignore_errors=True)
        hidden = pathlib.Path(tempfile.mkdtemp(prefix=HIDDEN, dir=export_dir))
        yield hidden
    except OSError as error:
        raise UserError(
            "--export_dir: expected a directory that can be written, received "
            f"{str(export_dir)!r} ({error.strerror})."
        ) from error
    finally:
        if hidden:
            shutil.rmtree(hidden, ignore_errors=True)


def require_unused(export_dir: pathlib.Path, version: int | None) -> None:
    """Raises UserError unless `version`, where it is named, is free."""
    if version is not None and (type(version) is not int or version < 1):
        raise UserError(
            f"--version: expected an integer >= 1, received {version!r}."
        )
    if version and export_dir.is_dir() and version in published(export_dir):
        raise UserError(
            f"--version: expected one that {export_dir} does not hold, "
            f"received {version} (an existing version is never overwritten)."
        )


def publish(
    bundle: pathlib.Path, export_dir: pathlib.Path, version: int | None
) -> pathlib.Path:
    """Renames a bundle, synced to disk, to its version number, or to one past
    the highest there is.

    Raises:
      UserError: the version has appeared meanwhile.
    """
    for path in (*bundle.rglob("*"), bundle):
        _sync(path)
    while True:
        require_unused(export_dir, version)
        number = version or max(published(export_dir), default=0) + 1
        path = export_dir / str(number)
        try:
            # Onto a directory that holds something, a rename fails.
            os.rename(bundle, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            continue  # Another export was faster.
        _sync(export_dir)
        return path


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(export_dir: pathlib.Path, keep: int, also: int) -> list[int]:
    """Removes all versions but the `keep` highest and `also`; returns the
    removed.
    """
    removed = [v for v in published(export_dir)[:-keep] if v != also]
    for version in removed:
        hidden = tempfile.mkdtemp(prefix=HIDDEN, dir=export_dir)
        os.rename(export_dir / str(version), hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return removed
