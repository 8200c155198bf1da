"""What a source of images gives, which of its rows go to which split, and the
noise that is drawn once for each.

Nothing here depends on a run's seed: every run, on every machine, sees the same
splits in the same order."""

import dataclasses
import math
from typing import TypeVar

import numpy as np

from vae_tf.config import SPLITS
from vae_tf.data.disk_images import DiskImages
from vae_tf.settings import UserError

# Bytes of uint8 images; a larger dataset stays on disk.
MEMORY_LIMIT = 2 * 2**30
CUT_KEY = 0x7AE  # Philox key of the permutation that cuts a missing split
# What a user may call a split, as a folder or an array.
SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    "val": "validation",
    "valid": "validation",
}

Images = np.ndarray | DiskImages  # uint8 [N, H, W, C]
Labels = np.ndarray | None  # integers [N]
Rows = np.ndarray | slice
Stored = TypeVar("Stored", Images, Labels)


@dataclasses.dataclass(frozen=True)
class Source:
    """Splits of one dataset, as stored: pixel k of `levels` equally spaced grey
    levels from 0 to 1.

    Attributes:
      name: what loads it again, such as "mnist" or the path of a folder.
      variant: name and version.
      levels: number of grey levels; 2 for data that is binary already.
      images: by split, a uint8 array [N, H, W, C], on disk where memory is
        short.
      labels: by split, the integer labels [N] in the order of the images, or
        None.
    """

    name: str
    variant: str
    levels: int
    images: dict[str, Images]
    labels: dict[str, Labels]


def fits_memory(count: int, shape: tuple[int, int, int]) -> bool:
    """Whether `count` uint8 images of `shape` [H, W, C] are held in memory."""
    return count * math.prod(shape) <= MEMORY_LIMIT


def split_rows(sizes: dict[str, int]) -> dict[str, tuple[str, Rows]]:
    """Split -> (stored split, rows of it). A missing one is a tenth of `train`,
    cut by a fixed permutation.

    Raises:
      UserError: there are fewer than 10 images to cut.
    """
    pool = "train" if "train" in sizes else max(sizes, key=sizes.__getitem__)
    rows: dict[str, tuple[str, Rows]] = {
        split: (split, slice(None))
        for split in SPLITS
        if split in sizes and split != pool
    }
    # Sorting raw Philox words permutes alike under every NumPy: only the raw
    # stream is promised to stay.
    order = np.argsort(
        np.random.Philox(key=CUT_KEY).random_raw(sizes[pool]), kind="stable"
    )
    tenth = sizes[pool] // 10
    for split in ("test", "validation"):
        if split not in rows:
            rows[split], order = (pool, np.sort(order[:tenth])), order[tenth:]
    rows["train"] = (pool, np.sort(order))
    if sizes[pool] < 10:
        raise UserError(
            f"--dataset: expected at least 10 images, received {sizes[pool]}."
        )
    return {split: rows[split] for split in SPLITS}


def take_rows(stored: Stored, rows: Rows) -> Stored:
    """The chosen rows of what a split holds, [N, ...], in their stored
    order.
    """
    if stored is None or isinstance(rows, slice):
        return stored
    return stored.take(rows) if isinstance(stored, DiskImages) else stored[rows]


def uniform_of_image(
    key: int, split: str, row: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Noise in [0, 1) of one image of a split, the same in every run and
    whatever the batch that it comes in.
    """
    # Raw Philox words, and not a Generator's methods, because only their stream
    # is promised never to change.
    philox = np.random.Philox(
        key=key, counter=[0, 0, SPLITS.index(split), int(row)]
    )
    words = philox.random_raw(math.prod(shape))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)
