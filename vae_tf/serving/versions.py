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
import warnings

from vae_tf.settings import UserError, require_local

HIDDEN = ".unpublished-"  # a server reads names that are numbers only
ABANDONED = 24 * 3600  # seconds after which nobody is at work in there
MAX_VERSION = 2**63 - 1  # a server passes over what is no int64


def place(export_dir: str | os.PathLike) -> pathlib.Path:
    """`export_dir` as a path; raises UserError unless it can be a directory of
    this machine.
    """
    if export_dir == "" or not isinstance(export_dir, str | os.PathLike):
        raise UserError(
            f"--export_dir: expected a directory, received {export_dir!r}."
        )
    require_local("export_dir", export_dir)
    return pathlib.Path(export_dir)


def published(export_dir: pathlib.Path) -> dict[int, pathlib.Path]:
    """The versions there are, in order, each with its directory.

    A version is what TensorFlow Serving takes as one and can load: a directory
    whose name is an integer below 2^63, so that `007` is version 7. Of two
    with one number it takes the last by name, and passes over the other."""
    return {
        number: path
        for number, path in _numbered(export_dir)
        if number <= MAX_VERSION and os.path.isdir(path)
    }


def _numbered(export_dir: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """All that is called by a number, in order of these, then by name."""
    return sorted(
        (int(path.name), path)
        for path in export_dir.iterdir()
        if path.name.isascii() and path.name.isdigit()
    )


def warn_of_others(export_dir: pathlib.Path) -> None:
    """Warns, in one line, of what is called by a number and is no version."""
    if not export_dir.is_dir():
        return
    found = published(export_dir)
    words = []
    for number, path in _numbered(export_dir):
        if number > MAX_VERSION:
            words.append(f"{path.name} (beyond 2^63 - 1)")
        elif not os.path.isdir(path):
            words.append(
                f"{path.name} (no directory; a server would try to load it)"
            )
        elif found[number] != path:
            words.append(f"{path.name} ({found[number].name} is there, too)")
    if words:
        warnings.warn(
            f"--export_dir: {export_dir} holds what is no version: "
            f"{', '.join(words)}.",
            stacklevel=3,
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
    if version is None:
        return
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise UserError(
            f"--version: expected an integer >= 1 and <= {MAX_VERSION}, "
            f"received {version!r}."
        )
    taken = dict(_numbered(export_dir)) if export_dir.is_dir() else {}
    if version in taken:
        raise UserError(
            f"--version: expected one that {export_dir} does not hold, "
            f"received {version}, which is there as {taken[version].name!r} "
            "(an existing version is never overwritten)."
        )


def publish(
    bundle: pathlib.Path, export_dir: pathlib.Path, version: int | None
) -> pathlib.Path:
    """Renames a bundle, synced to disk, to its version number, or to one past
    the highest there is.

    Raises:
      UserError: the version has appeared meanwhile, or none is left.
    """
    for path in (*bundle.rglob("*"), bundle):
        _sync(path)
    while True:
        require_unused(export_dir, version)
        number = version or _next(export_dir)
        path = export_dir / str(number)
        try:
            # Onto a file, or a directory that holds something, it fails.
            os.rename(bundle, path)
        except OSError as error:
            if error.errno not in (
                errno.EEXIST,
                errno.ENOTEMPTY,
                errno.ENOTDIR,
            ):
                raise
            continue  # Another export was faster.
        _sync(export_dir)
        return path


def _next(export_dir: pathlib.Path) -> int:
    """One past the highest number there is, a file's too: where that is the
    highest, a server would look at nothing else.
    """
    numbers = [n for n, _ in _numbered(export_dir) if n <= MAX_VERSION]
    highest = max(numbers, default=0)
    if highest == MAX_VERSION:
        raise UserError(
            f"--version: expected a number, because {export_dir} holds the "
            f"highest there can be, {MAX_VERSION}, received None."
        )
    return highest + 1


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(export_dir: pathlib.Path, keep: int, also: int) -> list[int]:
    """Removes all versions but the `keep` highest and `also`; returns the
    removed, and warns of those that cannot be.
    """
    versions = list(published(export_dir))
    old = [number for number in versions[:-keep] if number != also]
    removed = []
    for number, path in _numbered(export_dir):
        if number not in old or not os.path.isdir(path):
            continue
        try:
            with tempfile.TemporaryDirectory(
                prefix=HIDDEN, dir=export_dir, ignore_cleanup_errors=True
            ) as hidden:
                os.rename(path, f"{hidden}/bundle")
            removed.append(number)
        except OSError as error:  # What was published stays published.
            warnings.warn(
                f"--keep: {path} was not removed ({error.strerror}).",
                stacklevel=3,
            )
    return removed
