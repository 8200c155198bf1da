"""What was computed once, on disk for the next process: decoded images.

`$XDG_CACHE_HOME/vae_tf` (`~/.cache/vae_tf`) holds it, and may be removed when
no process reads images from it."""

import hashlib
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np

from vae_tf.data.files import written_atomically
from vae_tf.settings import UserError


def key_of(words: Iterable, files: Iterable[pathlib.Path]) -> str:
    """A checksum of `words` and of the content of `files`."""
    digest = hashlib.sha256(repr(tuple(words)).encode())
    for path in sorted(files):
        digest.update(path.name.encode())
        _add(digest, path)
    return digest.hexdigest()


def _add(digest, path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)


def _checksum(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    _add(digest, path)
    return digest.hexdigest()


def cached(
    key: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `make` returned for this key, in this process or another.

    A file that is damaged is made anew, and where none can be written,
    everything works as without.
    """
    path = _directory() / f"{key}.npz"
    try:
        with np.load(path) as file:
            return dict(file)  # a flipped bit fails its CRC
    except OSError:  # none there, or none to read
        pass
    except Exception as error:  # A damaged zip raises nearly anything.
        warnings.warn(f"{path} is damaged ({error}).", stacklevel=2)
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]  # NumPy's stub
    except OSError as error:
        warnings.warn(
            f"{path.parent}: nothing is kept for the next start "
            f"({error.strerror}).",
            stacklevel=2,
        )
    return arrays


def cached_file(
    key: str, size: int, write: Callable[[BinaryIO], None]
) -> pathlib.Path:
    """A file of `size` bytes that `write` wrote for this key, in this process
    or another: what is there with another checksum is written anew.

    Raises:
      UserError: there is no room for it.
    """
    path = _directory() / key
    sealed = path.with_suffix(".sha256")
    if path.is_file():
        # All of it is read, at some GB/s: the first epoch does so, too.
        whole = path.stat().st_size == size and sealed.is_file()
        if whole and sealed.read_bytes() == _checksum(path).encode():
            return path
        warnings.warn(
            f"{path} is damaged, or of an earlier version: images are decoded "
            "anew.",
            stacklevel=2,
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < size:
            raise OSError(f"{free:,} bytes are free")
        with written_atomically(path) as temporary:
            with open(temporary, "wb") as file:
                write(file)
            with written_atomically(sealed) as sum:
                sum.write_text(_checksum(temporary))
    except OSError as error:
        raise UserError(
            "--dataset: expected room for a file of the decoded images, "
            f"{size:,} bytes, in {path.parent} ($XDG_CACHE_HOME moves it), "
            f"received {error.strerror or error}."
        ) from None
    return path


def _directory() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "vae_tf"
