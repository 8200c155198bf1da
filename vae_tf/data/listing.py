"""Which files of a folder are images, and of which split and class."""

import collections
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from vae_tf.data.splits import SPLIT_NAMES
from vae_tf.settings import UserError

SUFFIXES = (  # in lower or upper case
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".pbm", ".pgm", ".ppm"),
)
DEEPEST = 2  # folders that an image may lie in: its split's, its class's
KINDS = 10  # of files left out that a message names


class Listed(NamedTuple):
    """An image file: its path below the folder, its split ("train" where no
    folders are splits), and its class, None where there are none.
    """

    name: str
    split: str
    label: str | None


def listed(folder: pathlib.Path) -> list[Listed]:
    """The image files of a folder, in an order that no file system decides;
    warns of what it leaves out, except for hidden files.

    Folders train, validation (or val, valid) and test are the splits. Each of
    them, or the folder itself where there are none, holds images, or one
    subfolder of images per class.

    Raises:
      UserError: it cannot be read, holds no images, or it is not clear which
        splits and classes are meant.
    """
    try:
        names = sorted(_files(str(folder)))
    except OSError as error:
        raise UserError(
            f"--dataset: expected a folder that can be read, received {folder} "
            f"({error.filename}: {error.strerror})."
        ) from None
    images = [name for name in names if _suffix(name) in SUFFIXES]
    splits = _splits(folder, images)
    found, left, deep = [], [], []
    for name in names:
        *folders, _ = name.split("/")
        split = splits.get(folders[0]) if folders else None
        above = folders[1:] if split else folders  # of the image's class
        if len(above) > 1:
            deep.append(name)
        elif _suffix(name) not in SUFFIXES:
            left.append(name)
        else:
            found.append(
                Listed(name, split or "train", above[0] if above else None)
            )
    left_out = _words(left, deep)
    if not found:
        raise UserError(
            f"--dataset: expected a folder of {', '.join(SUFFIXES)} images, "
            "flat or with one subfolder per class, or of such folders train, "
            f"validation and test, received {folder} with "
            f"{left_out or 'no file'} instead."
        )
    for split in set(splits.values()) or {"train"}:
        _require_one_way(folder, [x for x in found if x.split == split])
    if left_out:
        warnings.warn(
            f"--dataset: left out {left_out} of {folder}.", stacklevel=3
        )
    return found


def shown(name: str) -> str:
    """A file's name in a message: quoted where it holds what no terminal
    shows.
    """
    return name if name.isprintable() else repr(name)


def _files(folder: str, depth: int = 0) -> Iterator[str]:
    """Paths below the folder of what is not hidden and no folder itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            linked = entry.is_symlink()
            # A link may lead back up, so it is followed where images may lie
            # and no deeper.
            if entry.is_dir(follow_symlinks=False) or (
                linked and depth < DEEPEST and os.path.isdir(entry.path)
            ):
                for name in _files(entry.path, depth + 1):
                    yield f"{entry.name}/{name}"
            else:
                yield entry.name


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _splits(folder: pathlib.Path, images: list[str]) -> dict[str, str]:
    """Name of a folder -> the split that it is; none where folders are classes.

    Args:
      folder: of the dataset.
      images: paths below it.
    """
    splits = {
        name: SPLIT_NAMES[name.lower()]
        for name in sorted(os.listdir(folder))
        if name.lower() in SPLIT_NAMES and os.path.isdir(folder / name)
    }
    filled: dict[str, str] = {}  # folder -> an image that it holds as a split
    others = []  # images in the folder itself or in one that is no split
    for name in images:
        top, *inside = name.split("/")
        if top in splits and len(inside) <= DEEPEST:
            filled.setdefault(top, name)
        elif len(inside) <= 1:
            others.append(name)
    train = [name for top, name in filled.items() if splits[top] == "train"]
    if not train and (others or not filled):
        return {}  # A class may be called "test".
    if not train:
        raise UserError(
            f"--dataset: expected images in a folder train beside "
            f"{next(iter(filled))}, received {folder} without any."
        )
    if others:
        raise UserError(
            "--dataset: expected images in folders train, validation and test "
            f"or in others, received {folder} with both ({shown(train[0])}, "
            f"{shown(others[0])})."
        )
    for split in set(splits.values()):
        same = [top for top in splits if splits[top] == split]
        if len(same) > 1:
            raise UserError(
                f"--dataset: expected one folder for {split}, received "
                f"{folder} with {' and '.join(same)}."
            )
    for top in splits:
        if top not in filled:
            raise UserError(
                f"--dataset: expected images in every split, received {folder} "
                f"without any in {top} (a split that has no folder is cut from "
                "train)."
            )
    return splits


def _require_one_way(folder: pathlib.Path, found: list[Listed]) -> None:
    """Raises UserError where some images of a split have a class and some have
    none.
    """
    flat = [each.name for each in found if each.label is None]
    inside = [each.name for each in found if each.label is not None]
    if flat and inside:
        raise UserError(
            "--dataset: expected images either in the folder itself or in one "
            f"subfolder per class, received {folder} with both "
            f"({shown(flat[0])}, {shown(inside[0])})."
        )


def _words(left: list[str], deep: list[str]) -> str:
    """What is left out, by count: files that are no images, and files in
    folders too deep to be a class's; empty where there is nothing.
    """
    counts = collections.Counter(map(_suffix, left)).most_common()
    words = [
        f"{count} {shown(suffix) if suffix else 'without a suffix'}"
        for suffix, count in counts[:KINDS]
    ]
    if rest := sum(count for _, count in counts[KINDS:]):
        words.append(f"{rest} of other kinds")
    if deep:
        files = "1 file" if len(deep) == 1 else f"{len(deep)} files"
        more = ", ..." if len(deep) > 1 else ""
        words.append(f"{files} in deeper folders ({shown(deep[0])}{more})")
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
