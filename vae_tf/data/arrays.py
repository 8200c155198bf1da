"""A user's own arrays -> a source of images."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_tf.config import SPLITS
from vae_tf.data.levels import Arrays, as_levels
from vae_tf.data.splits import (
    MEMORY_LIMIT,
    SPLIT_NAMES,
    Source,
    fits_memory,
    split_rows,
    take_rows,
)
from vae_tf.settings import UserError


def load_arrays(
    images: Any,
    labels: Any = None,
    levels: int | None = None,
    name: str = "arrays",
    variant: str = "arrays",
) -> Source:
    """Images that are in memory already, copied.

    Args:
      images: `[N, H, W]` or `[N, H, W, C]` with C of 1 or 3, as an array, which
        is cut into three splits, a pair (train, test), a triple (train,
        validation, test) or a dict by split. Integers or booleans are levels;
        floats from 0 to 1 are level / (levels - 1), others whole levels.
      labels: integers `[N]` of each class, in the same form; None, or None of
        a split, where there are none.
      levels: number of grey levels from black to white. None means 2 where all
        pixels are 0 or 1, else 256.
      name, variant: of the source.

    Raises:
      UserError: arrays of other types, shapes or values, of several shapes, or
        more than memory holds; or labels that do not go with them.
    """
    arrays = {
        split: _images(split, array)
        for split, array in _by_split("images", images).items()
    }
    _require_alike(arrays)
    pixels, levels = as_levels(arrays, levels)
    classes = _labels(labels, arrays)
    rows = split_rows({split: len(array) for split, array in pixels.items()})
    return Source(
        name=name,
        variant=variant,
        levels=levels,
        images={
            split: take_rows(pixels[whole], part)
            for split, (whole, part) in rows.items()
        },
        labels={
            split: take_rows(classes.get(whole), part)
            for split, (whole, part) in rows.items()
        },
    )


def _by_split(argument: str, value: Any) -> Arrays:
    """What is given for each split, as arrays of numbers."""
    named: dict[Any, Any]
    if isinstance(value, Mapping):
        named = dict(value)
    elif isinstance(value, (tuple, list)) and len(value) in (2, 3):
        names = SPLITS if len(value) == 3 else ("train", "test")
        named = dict(zip(names, value, strict=True))
    elif isinstance(value, tuple):
        raise UserError(
            f"{argument}: expected an array, a pair (train, test), a triple "
            "(train, validation, test) or a dict by split, received a tuple of "
            f"{len(value)}."
        )
    else:
        named = {"train": value}
    arrays: Arrays = {}
    for key, array in named.items():
        split = SPLIT_NAMES.get(key)
        if split is None or split in arrays:
            raise UserError(
                f"{argument}: expected each of {', '.join(SPLITS)} at most "
                f"once, received {', '.join(map(str, named))}."
            )
        if array is not None or argument == "images":
            arrays[split] = _array(argument, split, array)
    return arrays


def _array(argument: str, split: str, value: Any) -> np.ndarray:
    if isinstance(value, tuple):
        raise UserError(
            f"{argument}: expected an array for {split}, received a tuple of "
            f"{len(value)} (images go to `images`, labels to `labels`)."
        )
    try:
        array = np.asarray(value)
    except Exception as error:  # Each library refuses in its own words.
        raise UserError(
            f"{argument}: expected an array for {split}, received a "
            f"{type(value).__name__} ({error})."
        ) from None
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"{argument}: expected numbers for {split}, received a "
            f"{type(value).__name__} of dtype {array.dtype}."
        )
    return array


def _images(split: str, array: np.ndarray) -> np.ndarray:
    """As `[N, H, W, C]`."""
    shape = array.shape
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or 0 in shape or array.shape[-1] not in (1, 3):
        hint = ""
        if len(shape) == 4 and shape[1] in (1, 3):
            hint = " (np.moveaxis(images, 1, -1) puts channels last)"
        raise UserError(
            "images: expected [N, H, W] or [N, H, W, C] with C of 1 or 3, "
            f"received shape {shape} for {split}{hint}."
        )
    return array


def _require_alike(arrays: Arrays) -> None:
    if "train" not in arrays:
        raise UserError(
            "images: expected those of train, received "
            f"{', '.join(arrays) or 'none'}."
        )
    for words, kinds in (
        ("shape", {split: x.shape[1:] for split, x in arrays.items()}),
        ("dtype", {split: x.dtype for split, x in arrays.items()}),
    ):
        if len(set(kinds.values())) > 1:
            received = (f"{kind} ({split})" for split, kind in kinds.items())
            raise UserError(
                f"images: expected one {words} in all splits, received "
                f"{', '.join(received)}."
            )
    count = sum(map(len, arrays.values()))
    shape = arrays["train"].shape[1:]
    if not fits_memory(count, shape):
        raise UserError(
            f"images: expected at most {MEMORY_LIMIT:,} pixels (a folder of "
            "images is read from the disk), received "
            f"{count * math.prod(shape):,}."
        )


def _labels(labels: Any, images: Arrays) -> Arrays:
    """Integers [N] of those splits that have labels."""
    given = {} if labels is None else _by_split("labels", labels)
    found = {}
    for split, array in given.items():
        if array.ndim == 2 and array.shape[1] == 1:  # as Keras has them
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind == "f":
            raise UserError(
                "labels: expected integers [N], received shape "
                f"{array.shape} of {array.dtype} for {split}."
            )
        expected = len(images.get(split, ()))
        if len(array) != expected:
            raise UserError(
                f"labels: expected {expected:,} for {split}, one for each "
                f"image, received {len(array):,}."
            )
        found[split] = array.astype(np.int64)
    return found
