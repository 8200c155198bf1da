"""Where images come from: a TFDS dataset, a folder of images or scikit-learn's
digits -> uint8 images of three splits.

Nothing here depends on a run's seed: every run, on every machine, sees the same
splits in the same order."""

import os
import warnings

import numpy as np

from vae_tf.data.folder import load_folder
from vae_tf.data.splits import Source, split_rows
from vae_tf.data.tfds import load_tfds
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
      dataset: a TFDS image dataset, "digits" or the path of a folder of images.
        One that starts with ".", "/" or "~" is always a folder; a bare name
        that TFDS knows never is.
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
        if _is_folder(dataset):
            return load_folder(dataset, image_size, channels)
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


def _is_folder(dataset: str) -> bool:
    """Whether a folder of images is meant, there or not."""
    if dataset.startswith((".", "/", "~")):
        return True
    if not os.path.isdir(dataset):
        return False
    import tensorflow_datasets as tfds

    # A folder called "mnist" must not change what `--dataset mnist` means.
    return dataset not in tfds.list_builders(with_community_datasets=False)


def _digits(image_size: int | None, channels: int | None) -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels: the data
    that is always at hand.
    """
    for flag, value in (("image_size", image_size), ("channels", channels)):
        if value is not None:
            raise UserError(
                f"--{flag}: expected None for digits, which are 8x8x1, "
                f"received {value!r}."
            )
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
