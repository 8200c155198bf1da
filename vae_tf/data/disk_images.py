"""Images that are too many for memory: their pixels in a file, one image after
the other."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable

import keras
import numpy as np

from vae_tf.data.cache import cached_file

# Bytes that are sooner read than skipped, and of images read together.
GAP, PIECE = 2**15, 2**17


@dataclasses.dataclass(frozen=True)
class DiskImages:
    """uint8 images [N, H, W, C], of which a slice `images[first:last]` is an
    array, read when it is asked for.

    Attributes:
      path: of the file.
      image_shape: `(H, W, C)`.
      rows: those of the file that count, in ascending order.
    """

    path: pathlib.Path
    image_shape: tuple[int, int, int]
    rows: range | np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, H, W, C)`."""
        return (len(self.rows), *self.image_shape)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        rows = np.asarray(self.rows[part])
        if not len(rows):
            return np.zeros((0, *self.image_shape), np.uint8)
        gaps = math.prod(self.image_shape) * (np.diff(rows) - 1)
        runs = np.split(rows, np.flatnonzero(gaps > GAP) + 1)
        return np.concatenate([self._read(run) for run in runs])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Those rows, by reading all from the first to the last."""
        # Not by a memory map: its pages count as memory of the process.
        size, first = math.prod(self.image_shape), rows[0]
        count = rows[-1] + 1 - first
        pixels = np.fromfile(
            self.path, np.uint8, size * count, offset=size * first
        )
        return pixels.reshape(count, *self.image_shape)[rows - first]

    def take(self, rows: np.ndarray) -> "DiskImages":
        """The images of these numbers, in ascending order."""
        return dataclasses.replace(self, rows=np.asarray(self.rows)[rows])


def window(
    images: DiskImages,
    key: np.ndarray,
    number: int,
    size: int,
    drawn: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The images of window `number`, where a pass over all of them takes `size`
    images a window: pieces from all over the disk, their images shuffled, so
    that much is read at once and images that lie side by side do not stay so.

    Args:
      key: integers, of the pass.
      drawn: number of an image, and pixels from it on -> what to give for them.

    Returns:
      uint8 pixels `[size, H, W, C]`, of fewer images in the last window.
    """
    words = [int(word) % 2**64 for word in key]
    piece = max(PIECE // math.prod(images.image_shape), 1)  # images
    pieces = len(images) // piece
    order = np.random.default_rng(words).permutation(pieces)
    order = np.append(order, pieces)  # A shorter one, if any, comes last.
    place, end = number * size, min((number + 1) * size, len(images))
    pixels = np.empty((end - place, *images.image_shape), np.uint8)
    generator = np.random.default_rng([*words, 1 + number])
    rows = generator.permutation(len(pixels))
    while place < end:
        step, offset = divmod(place, piece)
        count = min(piece - offset, end - place)
        first = order[step] * piece + offset
        chosen, rows = rows[:count], rows[count:]
        pixels[chosen] = drawn(first, images[first : first + count])
        place += count
    return pixels


def on_disk(
    key: str,
    count: int,
    image_shape: tuple[int, int, int],
    batches: Callable[[], Iterable[np.ndarray]],
) -> DiskImages:
    """`count` images that `batches` gave for this key, uint8 `[B, H, W, C]`, in
    this process or another.

    Raises:
      UserError: they do not fit on the disk.
    """

    def write(file):
        print("Decoding images onto the disk, once for all runs:")
        progress = keras.utils.Progbar(count, interval=5, unit_name="image")
        for images in batches():
            images.tofile(file)
            progress.add(len(images))

    size = count * math.prod(image_shape)
    return DiskImages(cached_file(key, size, write), image_shape, range(count))
