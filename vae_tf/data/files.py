"""Files that are whole whenever someone looks."""

import contextlib
import os
import pathlib
import re
import time
import uuid
import zipfile
from collections.abc import Iterator

import numpy as np

TEMPORARY = re.compile(r"\.[0-9a-f]{32}-.+")
ABANDONED = 60  # seconds after which nobody is still writing a temporary file


@contextlib.contextmanager
def written_atomically(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, moved onto it at the end: a reader sees
    the old file or the new one.
    """
    # The suffix stays, because Keras and NumPy look at it. No process id, which
    # is the same in two containers that share a disk.
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path: pathlib.Path) -> bool:
    """Whether a file is, or was left, on its way to another name."""
    return TEMPORARY.fullmatch(path.name) is not None


def sweep(directory: pathlib.Path) -> None:
    """Removes what killed writers left below a directory."""
    for path in directory.rglob(".*"):
        with contextlib.suppress(OSError):  # gone, or another's
            old = time.time() - path.stat().st_mtime > ABANDONED
            if old and is_temporary(path) and path.is_file():
                path.unlink()


def unpacked(
    path: pathlib.Path, limit: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file. Each has a CRC, so a flipped bit is an
    error.

    Args:
      path: of the file.
      limit: bytes of all arrays, which a small file may hold any number of;
        None for those of the file, which is what `numpy.savez` writes.

    Raises:
      ValueError: it is damaged, or its arrays are larger.
      OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            expanded = sum(part.file_size for part in file.infolist())
        if expanded > (path.stat().st_size if limit is None else limit):
            raise ValueError(f"{expanded:,} bytes of arrays")
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError):
        raise
    except Exception as error:  # A damaged zip raises nearly anything.
        raise ValueError(str(error)) from None
