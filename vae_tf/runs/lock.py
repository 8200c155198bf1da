"""One writer of a run at a time."""

import contextlib
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from vae_tf.settings import UserError

LOCK = ".lock"


@contextlib.contextmanager
def only_writer(run_dir: pathlib.Path) -> Iterator[None]:
    """While this process alone trains the run. The lock of a process that died
    goes with it.

    Raises:
      UserError: another process trains it, or it cannot be written.
    """
    path = run_dir / LOCK
    try:
        # Never removed: another process may have it open already.
        file = open(path, "a+")
    except OSError as error:
        raise UserError(
            "--run_dir: expected a directory that can be written, received "
            f"{str(run_dir)!r} ({error.strerror})."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                "--run_dir: expected a run that no other process writes, "
                f"received {str(run_dir)!r}, which is written by "
                f"{file.read() or 'another'}."
            ) from None
        except OSError:
            pass  # A file system without locks.
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(
            f"process {os.getpid()} on {socket.gethostname()} since {since}"
        )
        file.flush()
        yield
