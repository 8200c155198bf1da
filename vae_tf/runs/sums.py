"""The files of a run that numbers come from, each with a checksum in
`SHA256SUMS` (`sha256sum --check` reads it): what was changed or damaged since
it was written is not taken for a result."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Iterator

from vae_tf.data.files import written_atomically
from vae_tf.settings import UserError

SUMS = "SHA256SUMS"


@contextlib.contextmanager
def written(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`written_atomically`.

    Raises:
      UserError: it cannot be written; what was there before is as it was.
    """
    try:
        with written_atomically(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(
            f"{path}: expected a file that can be written, received "
            f"{error.strerror or error}."
        ) from None


@contextlib.contextmanager
def sealed(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`written`, with the checksum of what was."""
    with contextlib.ExitStack() as stack:
        with written(path) as temporary:
            yield temporary
            digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
            # Until the file is moved to its place, both sums are good: a
            # process that is killed here leaves nothing that seems damaged.
            stack.enter_context(_alone(path.parent))
            others = _others(path)
            _write(path.parent, [*_sums(path.parent), (digest, path.name)])
        _write(path.parent, [*others, (digest, path.name)])


def read(path: pathlib.Path) -> bytes:
    """What a file holds.

    Raises:
      UserError: that is not what was written.
      OSError: it cannot be read.
    """
    content = path.read_bytes()
    if _is_known(path, content):
        return content
    with _alone(path.parent):  # Another process may have been writing it.
        content = path.read_bytes()
        if _is_known(path, content):
            return content
    raise UserError(
        f"{path}: expected what was written there, received a file that was "
        "changed or damaged since, with another SHA-256 (to take it as it is, "
        f"remove its line from {path.with_name(SUMS)})."
    )


def _is_known(path: pathlib.Path, content: bytes) -> bool:
    """Whether this is what was written, or nobody said what was: by an earlier
    version, or because a person took it as it is.
    """
    known = [sum for sum, name in _sums(path.parent) if name == path.name]
    return not known or hashlib.sha256(content).hexdigest() in known


def _others(path: pathlib.Path) -> list[tuple[str, str]]:
    return [pair for pair in _sums(path.parent) if pair[1] != path.name]


def _sums(directory: pathlib.Path) -> list[tuple[str, str]]:
    """`(checksum, name)` of each file; none of a line that is damaged."""
    try:
        lines = (directory / SUMS).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    pairs = (line.split("  ", 1) for line in lines)
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _write(directory: pathlib.Path, sums: list[tuple[str, str]]) -> None:
    with written(directory / SUMS) as path:
        path.write_text("".join(f"{sum}  {name}\n" for sum, name in sums))


@contextlib.contextmanager
def _alone(directory: pathlib.Path) -> Iterator[None]:
    """While no other process changes the checksums of a directory."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
