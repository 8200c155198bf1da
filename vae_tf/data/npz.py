"""An `.npz` of arrays, named as in the one that Keras keeps of MNIST."""

import math
import pathlib
import warnings
import zipfile
from typing import Any

import numpy as np

from vae_tf.data.arrays import load_arrays
from vae_tf.data.listing import shown
from vae_tf.data.splits import MEMORY_LIMIT, SPLIT_NAMES, Source
from vae_tf.settings import UserError

NAMED = 20  # arrays that a message names


def load_npz(path: pathlib.Path) -> Source:
    """The images in an `.npz`: x_train, and x_validation (or x_val) and x_test
    where there are any, with y_train and so on for their labels; or images,
    with labels. As `load_arrays` takes them, with `levels` as a further array.

    Raises:
      UserError: the file is damaged, or too large when it is unpacked; it has
        no such arrays, or they are not what `load_arrays` takes.
    """
    found = _read(path)
    levels: Any = found.pop("levels", None)
    if np.size(levels) == 1 and levels is not None:
        levels = levels.item()
    images, labels = (
        {
            name.removeprefix(axis): array
            for name, array in found.items()
            if name.startswith(axis)
        }
        for axis in ("x_", "y_")
    )
    try:
        return load_arrays(
            found.get("images", images),
            found.get("labels", labels),
            levels,
            name=str(path),
            variant=f"npz {path.stem}",
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of images, labels and levels."""
    try:
        with zipfile.ZipFile(path) as file:
            members = {
                member.filename.removesuffix(".npy"): member
                for member in file.infolist()
            }
            names = _wanted(path, list(members))
            _require_room(path, sum(members[n].file_size for n in names))
            headers = {name: _header(file, members[name]) for name in names}
            for name, (_, dtype) in headers.items():
                if dtype.hasobject:
                    raise UserError(
                        f"{path}: expected arrays of numbers, received {name} "
                        "of Python objects, which are not unpickled."
                    )
            _require_room(
                path,
                sum(
                    math.prod(shape) * dtype.itemsize
                    for shape, dtype in headers.values()
                ),
            )
            arrays = {}
            for name in names:
                with file.open(members[name]) as array:
                    arrays[name] = np.lib.format.read_array(
                        array, allow_pickle=False
                    )
            return arrays
    except UserError:
        raise
    except Exception as error:  # A damaged zip raises nearly anything.
        raise UserError(
            f"{path}: expected an .npz of arrays, received a damaged file "
            f"({error or type(error).__name__})."
        ) from None


def _wanted(path: pathlib.Path, names: list[str]) -> list[str]:
    """Those of the arrays that are read; warns of the others."""
    of_splits = {f"{axis}_{split}" for split in SPLIT_NAMES for axis in "xy"}
    in_splits = any(f"x_{split}" in names for split in SPLIT_NAMES)
    if in_splits == ("images" in names):
        raise UserError(
            f"{path}: expected arrays x_train, y_train, x_test, y_test, or "
            f"images and labels, received {_listing(names) or 'none'}."
        )
    known = {"levels"} | (of_splits if in_splits else {"images", "labels"})
    left = [name for name in names if name not in known]
    if left:
        warnings.warn(
            f"--dataset: left out {_listing(left)} of {path}.", stacklevel=4
        )
    return [name for name in names if name in known]


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more


def _header(
    file: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array that is not read yet."""
    with file.open(member) as array:
        version = np.lib.format.read_magic(array)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(array)
    return shape, dtype


def _require_room(path: pathlib.Path, size: int) -> None:
    if size > MEMORY_LIMIT:
        raise UserError(
            f"{path}: expected at most {MEMORY_LIMIT:,} bytes of arrays (a "
            "folder of images is read from the disk), received "
            f"{size:,}."
        )
