"""Images from a folder: a file per image, in folders that are splits or classes
(see `listing`), or in none."""

import concurrent.futures
import math
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import cast

import numpy as np
import PIL
import PIL.Image

import vae_tf
from vae_tf.config import SPLITS
from vae_tf.data.cache import key_of
from vae_tf.data.disk_images import on_disk
from vae_tf.data.listing import Listed, listed, shown
from vae_tf.data.resizing import is_grey, resized
from vae_tf.data.splits import (
    Images,
    Labels,
    Source,
    fits_memory,
    split_rows,
)
from vae_tf.settings import UserError

# What a file may hold, whatever it is called: none that Pillow hands to another
# program, such as EPS.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**26  # of a file; a few bytes may claim any number of them
AT_A_TIME = 1000  # files handed to the threads
NAMED = 20  # unreadable files that a message names


def load_folder(
    folder: pathlib.Path, image_size: int | None, channels: int | None
) -> Source:
    """The images in a folder, each of which is decoded to see that it can be:
    into memory where they fit, else (see `cache`) onto the disk. Of a file of
    several images, the first; a file of more than 67,108,864 pixels is left
    out.

    Args:
      folder: its absolute path. Folders in it are splits or classes as
        `listed` says; classes are numbered in the order of their names, alike
        in every split.
      image_size: height and width asked for; None where all have one size.
      channels: 1, 3, or None: 1 if all images are grey, else 3.

    Raises:
      UserError: as `listed`; or there are no 10 readable images to train on, no
        readable ones in a split, or, with `image_size` unset, images of several
        sizes; or they fit neither memory nor the disk.
    """
    found = listed(folder)
    readable: list[Listed] = []
    unreadable: dict[str, str] = {}  # name -> reason
    images: list[np.ndarray] = []
    shape = (0, 0, 0)
    names = [each.name for each in found]
    decoded = _decoded(folder, names, image_size, channels)
    for each, image in zip(found, decoded, strict=True):
        if isinstance(image, str):
            unreadable[each.name] = image
            continue
        height, width, colours = image.shape
        shape = shape if readable else (height, width, colours)
        readable.append(each)
        if (height, width) != shape[:2]:
            raise UserError(
                "--image_size: expected the size to resize to, because the "
                f"images of {folder} differ in theirs ({shape[0]}x{shape[1]} "
                f"of {shown(readable[0].name)}, {height}x{width} of "
                f"{shown(each.name)}; height x width), received None."
            )
        shape = (height, width, max(colours, shape[2]))
        if fits_memory(len(readable), shape):
            images.append(image)
        else:
            images.clear()
    _report(folder, found, unreadable)

    rows = _rows(readable)
    stored: dict[str, Images]
    if fits_memory(len(readable), shape):
        # Grey among colours: the same level thrice.
        stored = {
            split: np.stack(
                [np.broadcast_to(images[row], shape) for row in chosen]
            )
            for split, chosen in rows.items()
        }
    else:
        names = [each.name for each in readable]
        # No reasons: all of these were decoded before.
        again = cast(
            Iterator[np.ndarray],
            _decoded(folder, names, image_size, shape[2]),
        )
        stats = [(folder / name).stat() for name in names]
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        every = on_disk(
            key_of((vae_tf.__version__, folder, names, stamps, shape), []),
            len(readable),
            shape,
            lambda: (image[np.newaxis] for image in again),
        )
        stored = {split: every.take(chosen) for split, chosen in rows.items()}
    classes = sorted({each.label for each in found if each.label is not None})
    return Source(
        name=str(folder),
        variant=f"folder {folder.name}",
        levels=256,
        images=stored,
        labels={
            split: _labels([readable[row] for row in chosen], classes)
            for split, chosen in rows.items()
        },
    )


def _rows(readable: list[Listed]) -> dict[str, np.ndarray]:
    """Numbers of the images of each split, in ascending order."""
    splits = np.array([each.split for each in readable])
    stored = {split: np.flatnonzero(splits == split) for split in SPLITS}
    sizes = {split: len(rows) for split, rows in stored.items() if len(rows)}
    return {
        split: stored[whole][part]
        for split, (whole, part) in split_rows(sizes).items()
    }


def _labels(images: list[Listed], classes: list[str]) -> Labels:
    """Number of the class of each image of a split [N]; None where they have
    none.
    """
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[each.label] for each in images if each.label is not None]
    return np.array(labels) if labels else None


def _decoded(
    folder: pathlib.Path,
    names: list[str],
    image_size: int | None,
    channels: int | None,
) -> Iterator[np.ndarray | str]:
    """Each file's pixels [H, W, C], or the reason why there are none. C is the
    image's own where `channels` is unset.
    """

    def decode(name):
        path = folder / name
        if os.path.exists(path) and not os.path.isfile(path):
            return "not a regular file"  # A pipe would be waited for.
        try:
            with PIL.Image.open(path, formats=FORMATS) as image:
                if math.prod(image.size) > MAX_PIXELS:
                    return f"{math.prod(image.size):,} pixels"
                own = 1 if is_grey(image) else 3
                return resized(image, image_size, channels or own)
        except PIL.UnidentifiedImageError:
            return "not an image"
        except Exception as error:  # A broken file can make PIL raise anything.
            return str(error) or type(error).__name__

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(names), AT_A_TIME):
            yield from pool.map(decode, names[start : start + AT_A_TIME])


def _report(
    folder: pathlib.Path, found: list[Listed], unreadable: dict[str, str]
) -> None:
    """Says which of the files found are skipped; that all of a split are is an
    error.
    """
    for split in dict.fromkeys(each.split for each in found):
        names = [each.name for each in found if each.split == split]
        if all(name in unreadable for name in names):
            reasons = _named({name: unreadable[name] for name in names})
            raise UserError(
                "--dataset: expected a folder of readable images, received "
                f"{folder} with {len(names)} of {len(names)} unreadable: "
                f"{reasons}."
            )
    if unreadable:
        warnings.warn(
            f"--dataset: skipped {len(unreadable)} of {len(found)} images in "
            f"{folder} that cannot be read: {_named(unreadable)}.",
            stacklevel=3,
        )


def _named(unreadable: dict[str, str]) -> str:
    """Names and reasons of the first files, and how many more there are."""
    words = [f"{shown(name)} ({why})" for name, why in unreadable.items()]
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
