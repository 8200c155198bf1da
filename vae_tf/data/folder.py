"""Images from a folder: PNG and JPEG files, flat or one subfolder per class."""

import concurrent.futures
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import cast

import numpy as np
import PIL
import PIL.Image

import vae_tf
from vae_tf.data.cache import key_of
from vae_tf.data.disk_images import on_disk
from vae_tf.data.resizing import is_grey, resized
from vae_tf.data.splits import (
    Images,
    Source,
    fits_memory,
    split_rows,
    take_rows,
)
from vae_tf.settings import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")  # in lower or upper case
AT_A_TIME = 1000  # files handed to the threads
NAMED = 20  # unreadable files that a message names


def load_folder(
    dataset: str, image_size: int | None, channels: int | None
) -> Source:
    """The images in a folder, each of which is decoded to see that it can be:
    into memory where they fit, else (see `cache`) onto the disk.

    Args:
      dataset: path of the folder; "~" is the user's home. Its subfolders are
        classes, numbered in the order of their names.
      image_size: height and width asked for; None where all have one size.
      channels: 1, 3, or None: 1 if all images are grey, else 3.

    Raises:
      UserError: there is no such folder, it holds no 10 readable images, both
        images and subfolders of them, or, with `image_size` unset, images of
        several sizes; or they fit neither memory nor the disk.
    """
    folder = pathlib.Path(os.path.expanduser(dataset)).resolve()
    if not folder.is_dir():
        reason = "not a folder" if folder.exists() else "no such folder"
        raise UserError(
            "--dataset: expected a TFDS image dataset, 'digits' or a folder of "
            f"images, received {dataset!r} ({reason})."
        )
    names = _names(folder)
    readable: list[str] = []
    unreadable: list[str] = []
    images: list[np.ndarray] = []
    shape = (0, 0, 0)
    decoded = _decoded(folder, names, image_size, channels)
    for name, image in zip(names, decoded, strict=True):
        if isinstance(image, str):
            unreadable.append(f"{name} ({image})")
            continue
        height, width, colours = image.shape
        shape = shape if readable else (height, width, colours)
        readable.append(name)
        if (height, width) != shape[:2]:
            raise UserError(
                "--image_size: expected the size to resize to, because the "
                f"images of {folder} differ in theirs ({shape[0]}x{shape[1]} "
                f"of {readable[0]}, {height}x{width} of {name}; height x "
                "width), received None."
            )
        shape = (height, width, max(colours, shape[2]))
        if fits_memory(len(readable), shape):
            images.append(image)
        else:
            images.clear()
    _report(folder, unreadable, len(names))

    count = len(readable)
    rows = {
        split: np.arange(count)[part]
        for split, (_, part) in split_rows({"train": count}).items()
    }
    stored: dict[str, Images]
    if fits_memory(count, shape):
        # Grey among colours: the same level thrice.
        stored = {
            split: np.stack(
                [np.broadcast_to(images[row], shape) for row in chosen]
            )
            for split, chosen in rows.items()
        }
    else:
        # No reasons: all of these were decoded before.
        again = cast(
            Iterator[np.ndarray],
            _decoded(folder, readable, image_size, shape[2]),
        )
        stats = [(folder / name).stat() for name in readable]
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        every = on_disk(
            key_of((vae_tf.__version__, folder, readable, stamps, shape), []),
            count,
            shape,
            lambda: (image[np.newaxis] for image in again),
        )
        stored = {split: every.take(chosen) for split, chosen in rows.items()}
    labels = _labels(folder, readable)
    return Source(
        name=str(folder),
        variant=f"folder {folder.name}",
        levels=256,
        images=stored,
        labels={split: take_rows(labels, r) for split, r in rows.items()},
    )


def _names(folder: pathlib.Path) -> list[str]:
    """The image files, as paths below the folder, in an order that no file
    system decides.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for pattern in ("[!.]*", "[!.]*/[!.]*")  # none that is hidden
        for path in folder.glob(pattern)
        if path.suffix.lower() in SUFFIXES and not path.is_dir()
    )
    top = [name for name in names if "/" not in name]
    inside = [name for name in names if "/" in name]
    if top and inside:
        raise UserError(
            "--dataset: expected images either in the folder itself or in one "
            f"subfolder per class, received {folder} with both ({top[0]}, "
            f"{inside[0]})."
        )
    if not names:
        raise UserError(
            f"--dataset: expected a folder of {', '.join(SUFFIXES)} images, or "
            f"of one subfolder of them per class, received {folder} without "
            "any."
        )
    return names


def _labels(folder: pathlib.Path, names: list[str]) -> np.ndarray | None:
    """Number of the class of each image [N]; None where there are none."""
    if "/" not in names[0]:
        return None
    classes = sorted(
        path.name for path in folder.glob("[!.]*") if path.is_dir()
    )
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[name.split("/")[0]] for name in names])


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
        try:
            with PIL.Image.open(folder / name) as image:
                own = 1 if is_grey(image) else 3
                return resized(image, image_size, channels or own)
        except PIL.UnidentifiedImageError:
            return "not an image"
        except Exception as error:  # A broken file can make PIL raise anything.
            return str(error) or type(error).__name__

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(names), AT_A_TIME):
            yield from pool.map(decode, names[start : start + AT_A_TIME])


def _report(folder: pathlib.Path, unreadable: list[str], count: int) -> None:
    """Says which of the `count` files are skipped; that all are is an error."""
    if not unreadable:
        return
    named = ", ".join(unreadable[:NAMED])
    if len(unreadable) > NAMED:
        named += f" and {len(unreadable) - NAMED} more"
    if len(unreadable) == count:
        raise UserError(
            f"--dataset: expected a folder of readable images, received "
            f"{folder} with {count} of {count} unreadable: {named}."
        )
    warnings.warn(
        f"--dataset: skipped {len(unreadable)} of {count} images in {folder} "
        f"that cannot be read: {named}.",
        stacklevel=2,
    )
