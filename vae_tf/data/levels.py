"""Pixels of any type -> uint8 grey levels, exactly, or not at all."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from vae_tf.settings import UserError

MAX_LEVELS = 256
PIECE = 2**20  # pixels converted together
# How far from a level, in steps, a float may be that means it: k/255 rounded to
# a float32 is nearer by far.
TOLERANCE = 1e-3
DARK = 128  # No image of 256 levels is all below it.

Arrays = dict[str, np.ndarray]  # by split


def as_levels(arrays: Arrays, levels: Any) -> tuple[Arrays, int]:
    """Pixels as uint8 levels, copied, and how many levels there are.

    Args:
      arrays: of every split, of one dtype. Integers and booleans are levels, as
        are floats where one is above 1; else floats are level / (levels - 1).
      levels: None means 2 where all pixels are 0 or 1, else 256.

    Raises:
      UserError: values lie outside the levels or between two of them.
    """
    kind = arrays["train"].dtype.kind
    low = np.min([array.min() for array in arrays.values()])
    high = np.max([array.max() for array in arrays.values()])
    most = 2 if kind == "b" else MAX_LEVELS
    if levels is not None and (
        not isinstance(levels, (int, np.integer)) or not 2 <= levels <= most
    ):
        raise UserError(
            f"levels: expected an integer from 2 to {most} for images of "
            f"{arrays['train'].dtype}, received {levels!r}."
        )
    fractions = kind == "f" and high <= 1
    top = 1 if fractions else (levels or most) - 1
    if not (low >= 0 and high <= top):  # nor is NaN
        either = "from 0 to 1 or " if kind == "f" and not fractions else ""
        raise UserError(
            f"images: expected values {either}from 0 to {top}, received {low} "
            f"to {high}."
        )
    if levels is None and most > 2 and 1 < high < DARK:
        warnings.warn(
            f"levels: unset, so the highest value of these images, {high}, is "
            f"a dark grey among 256; levels={int(high) + 1} makes it white.",
            stacklevel=5,
        )
    tried = [levels] if levels else [2, most] if high <= 1 else [most]
    for levels in tried:
        steps = levels - 1 if fractions else 1
        off = _first_off(arrays, steps)
        if off is None:
            return {
                split: _whole(array, steps) for split, array in arrays.items()
            }, int(levels)
    by = f"{steps} * " if fractions else ""
    raise UserError(
        f"images: expected values on {levels} equally spaced levels from 0 to "
        f"{top}, received {low} to {high} with {off}, which lies between two: "
        "`levels` says how many there are, or they are rounded, "
        f"np.round({by}images).astype(np.uint8)."
    )


def _pieces(array: np.ndarray) -> Iterator[slice]:
    """Slices of `[N, H, W, C]` whose copies are small."""
    step = max(PIECE // math.prod(array.shape[1:]), 1)
    return (slice(k, k + step) for k in range(0, len(array), step))


def _first_off(arrays: Arrays, steps: int) -> float | None:
    """The first value that, times `steps`, is no integer."""
    for array in arrays.values():
        if array.dtype.kind != "f":
            return None
        # A float16 is coarser than the tolerance.
        near = max(TOLERANCE, float(steps * np.finfo(array.dtype).eps))
        for part in _pieces(array):
            scaled = steps * array[part].astype(np.float64)
            off = np.abs(scaled - np.round(scaled)) > near
            if off.any():
                return float(array[part][off][0])
    return None


def _whole(array: np.ndarray, steps: int) -> np.ndarray:
    """Each value times `steps`, as uint8; a copy."""
    pixels = np.empty(array.shape, np.uint8)
    for part in _pieces(array):
        if array.dtype.kind == "f":
            pixels[part] = np.round(steps * array[part].astype(np.float64))
        else:
            pixels[part] = array[part]
    return pixels
