"""Where images come from: a TFDS dataset, a folder of images, an .npz of arrays
or scikit-learn's digits -> uint8 images of three splits.

Nothing here depends on a run's seed: every run, on every machine, sees the same
splits in the same order."""

import os
import pathlib
import warnings

import numpy as np

from vae_tf.data.folder import load_folder
from vae_tf.data.npz import load_npz
from vae_tf.data.splits import Source, split_rows
from vae_tf.data.tfds import is_known, load_tfds
from vae_tf.settings import UserError


def load_source(
    dataset: str | None,
    data_dir: str | None,
    image_size: int | None = None,
    channels: int | None = None,
) -> Source:
    """The images called `dataset`; unset means MNIST, or digits, loudly, where
    MNIST is out of reach.

    Args:
      dataset: a TFDS image dataset, "digits" or the path of a folder of images
        or of an .npz. One that starts with ".", "/" or "~" or ends with ".npz"
        is always a path; a bare name that TFDS knows never is.
      data_dir: TFDS data directory; None means TFDS's own default.
      image_size: height and width to which images are cropped and resized;
        None keeps their own, which must then be the same for all.
      channels: 1 for grey, 3 for RGB; None keeps what is stored.

    Raises:
      UserError: a dataset that was named is unknown, holds no images that can
        be given the size and channels asked for, or is neither prepared in
        `data_dir` nor downloadable.
    """
    if channels not in (None, 1, 3):
        raise UserError(
            f"--channels: expected 1 (grey) or 3 (RGB), received {channels!r}."
        )
    if dataset == "digits":
        return _digits(image_size, channels)
    if dataset is not None:
        if _is_path(dataset):
            return _load_path(dataset, image_size, channels)
        return load_tfds(dataset, data_dir, image_size, channels)
    try:
        return load_tfds("mnist", data_dir, image_size, channels)
    except UserError as error:
        if image_size is not None or channels is not None:
            raise  # Digits have but one shape: they cannot stand in.
        warnings.warn(
            "no --dataset was named and MNIST is out of reach, so this run "
            "uses scikit-learn's 8x8 digits "
            f"instead: its numbers say nothing about MNIST. Why: {error}",
            stacklevel=2,
        )
        return _digits(None, None)


def _is_path(dataset: str) -> bool:
    """Whether a folder or a file is meant, there or not."""
    if dataset.startswith((".", "/", "~")) or _is_npz(dataset):
        return True
    # A folder called "mnist" must not change what `--dataset mnist` means.
    return os.path.exists(dataset) and not is_known(dataset)


def _is_npz(path: str) -> bool:
    return path.lower().endswith(".npz")


def _load_path(
    dataset: str, image_size: int | None, channels: int | None
) -> Source:
    """The images in a folder or in an .npz; "~" is the user's home."""
    path = pathlib.Path(os.path.abspath(os.path.expanduser(dataset)))
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Neither report nor config.json could hold it.
        raise UserError(
            f"--dataset: expected a path in UTF-8, received {dataset!r}."
        ) from None
    if os.path.isdir(path):
        return load_folder(path.resolve(), image_size, channels)
    # Not where a link leads: that may be called anything.
    if os.path.isfile(path) and _is_npz(dataset):
        _require_own_shape("an .npz, used as it is", image_size, channels)
        return load_npz(path)
    there = os.path.lexists(path)
    raise UserError(
        "--dataset: expected a TFDS image dataset, 'digits', a folder of "
        f"images or an .npz of arrays, received {dataset!r} ("
        f"{'neither a folder nor an .npz' if there else 'no such path'})."
    )


def _require_own_shape(
    what: str, image_size: int | None, channels: int | None
) -> None:
    """Raises UserError where another shape is asked for than the data has."""
    for flag, value in (("image_size", image_size), ("channels", channels)):
        if value is not None:
            raise UserError(
                f"--{flag}: expected None for {what}, received {value!r}."
            )


def _digits(image_size: int | None, channels: int | None) -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels: the data
    that is always at hand.
    """
    _require_own_shape("digits, which are 8x8x1", image_size, channels)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]  # [1797, 8, 8, 1]
    rows = split_rows({"train": len(images)})
    return Source(
        name="digits",
        variant="digits (scikit-learn)",
        levels=17,
        images={split: images[chosen] for split, (_, chosen) in rows.items()},
        labels={
            split: digits.target[chosen] for split, (_, chosen) in rows.items()
        },
    )
