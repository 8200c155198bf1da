"""Files that are whole whenever someone looks."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def written_atomically(path: pathlib.Path):
    """A temporary path beside `path`, moved onto it at the end: a reader sees
    the old file or the new one.
    """
    # The suffix stays, because Keras and NumPy look at it.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
