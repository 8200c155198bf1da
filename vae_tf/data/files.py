"""Files that are whole whenever someone looks."""

import contextlib
import os
import pathlib
import uuid


@contextlib.contextmanager
def written_atomically(path: pathlib.Path):
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
