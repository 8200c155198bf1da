"""Images from TensorFlow Datasets: whatever has an image feature."""

import itertools
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.cache import cached, key_of
from vae_tf.config import SPLITS, UserError
from vae_tf.resizing import resized
from vae_tf.splits import Source, fits_memory, split_rows, take_rows

# Seconds to wait for a dataset's host before calling it unreachable.
REACH_TIMEOUT = 4.0


def load_tfds(
    name: str,
    data_dir: str | None,
    image_size: int | None,
    channels: int | None,
) -> Source:
    """A TFDS dataset of images: decoded into memory where it fits, once for all
    processes (see `cache`), else streamed.

    Args:
      name: as TFDS knows it, such as "mnist".
      data_dir: TFDS data directory; None means TFDS's own default.
      image_size: height and width asked for; None where all have one size.
      channels: 1, 3, or None: as stored (RGBA becomes RGB over white).

    Raises:
      UserError: it is unknown, holds no uint8 images, or, with `image_size`
        unset, images of several sizes; or it is neither prepared in `data_dir`
        nor downloadable.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,  # another version than there is
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            "--dataset: expected a TFDS image dataset, 'digits' or a folder of "
            f"images, received {name!r} ({reason})."
        ) from None
    keys = _features(builder)
    stored_shape = builder.info.features[keys[0]].shape
    shape = _shape(builder.name, stored_shape, image_size, channels)
    if not builder.is_prepared():
        _download(builder)

    def convert(image):
        if shape == stored_shape:
            return image
        pixels = tf.numpy_function(
            lambda image: resized(image, image_size, shape[2]),
            [image],
            tf.uint8,
        )
        return tf.ensure_shape(pixels, shape)

    sizes = {
        split: info.num_examples for split, info in builder.info.splits.items()
    }
    sizes = {split: n for split, n in sizes.items() if split in SPLITS} or sizes
    rows = split_rows(sizes)
    wanted = sorted({split for split, _ in rows.values()})
    if fits_memory(sum(sizes.values()), shape):
        stored = _decoded(builder, wanted, keys, convert, shape)
    else:
        stored = {
            split: _stream(builder, split, keys, convert) for split in wanted
        }
    images, labels = (
        {split: take_rows(stored[s][part], r) for split, (s, r) in rows.items()}
        for part in (0, 1)
    )
    # Some datasets store bits as 0/1, not 0/255 (binarized_mnist). A thousand
    # images tell them apart.
    first = itertools.islice(images["train"], 1000)
    levels = 2 if all(np.max(image) <= 1 for image in first) else 256
    return Source(name, builder.info.full_name, levels, images, labels)


def _features(builder) -> tuple[str, str | None]:
    """The keys of the image and of its class label (None without one)."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features or {})
    images, labels = (
        [key for key, feature in features.items() if isinstance(feature, type_)]
        for type_ in (tfds.features.Image, tfds.features.ClassLabel)
    )
    if not images:
        raise UserError(
            "--dataset: expected a dataset with an image feature, received "
            f"{builder.name!r}."
        )
    image = features[images[0]]
    if image.np_dtype != np.uint8:
        raise UserError(
            f"--dataset: expected uint8 images, received {builder.name!r} with "
            f"{np.dtype(image.np_dtype).name} images of shape {image.shape}."
        )
    return images[0], labels[0] if labels else None


def _shape(
    name: str, stored: tuple, image_size: int | None, channels: int | None
) -> tuple[int, int, int]:
    """`(H, W, C)` of the images asked for; None in `stored` means several."""
    if image_size is None and None in stored[:2]:
        raise UserError(
            "--image_size: expected the size to resize to, because the images "
            f"of {name!r} differ in theirs (shape {stored}), received None."
        )
    return (
        image_size or stored[0],
        image_size or stored[1],
        channels or (1 if stored[2] == 1 else 3),
    )


def _download(builder) -> None:
    """Prepares a dataset. TFDS itself retries for minutes without a network, so
    look at the host first.
    """
    from tensorflow_datasets.core import download

    data_dir = pathlib.Path(builder.data_path).parents[1]

    def unreachable(reason):
        return UserError(
            f"--dataset: expected a dataset prepared in {data_dir} or "
            f"downloadable, received {builder.name!r} ({reason})."
        )

    for url in list(builder.url_infos)[:1]:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=REACH_TIMEOUT).close()
        except urllib.error.HTTPError:
            pass  # It answered, if not to this: the host is there.
        except OSError as error:
            host = urllib.parse.urlsplit(url).netloc
            reason = getattr(error, "reason", error)
            raise unreachable(f"{host}: {reason}") from None
    try:
        builder.download_and_prepare()
    except (
        OSError,
        AssertionError,  # TFDS's word for "download it by hand"
        download.download_manager.NonMatchingChecksumError,
        download.util.DownloadError,
    ) as error:
        raise unreachable(error) from None


def _decoded(
    builder, splits: list[str], keys: tuple, convert: Callable, shape: tuple
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """`_read` of each split, decoded by the first process that asks for these
    files in this shape.
    """

    def read_all():
        arrays = {}
        for split in splits:
            images, labels = _read(builder, split, keys, convert)
            arrays[f"{split}/images"] = images
            if labels is not None:
                arrays[f"{split}/labels"] = labels
        return arrays

    # What turns stored images into these is in the version.
    words = (vae_tf.__version__, builder.info.full_name, splits, keys, shape)
    files = [path for path in builder.data_path.iterdir() if path.is_file()]
    arrays = cached(key_of(words, files), read_all)
    return {
        split: (arrays[f"{split}/images"], arrays.get(f"{split}/labels"))
        for split in splits
    }


def _read(
    builder, split: str, keys: tuple[str, str | None], convert: Callable
) -> tuple[np.ndarray, np.ndarray | None]:
    """`(images [N, H, W, C] uint8, labels [N] or None)`, decoded once."""
    image_key, label_key = keys
    dataset = builder.as_dataset(split=split, shuffle_files=False).map(
        lambda example: (
            convert(example[image_key]),
            example[label_key] if label_key else 0,
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    images, labels = zip(*dataset.batch(1000).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels) if label_key else None


def _stream(
    builder, split: str, keys: tuple[str, str | None], convert: Callable
) -> tuple[tf.data.Dataset, tf.data.Dataset | None]:
    """`(images, labels or None)` as datasets that decode an image each time it
    is asked for.
    """
    import tensorflow_datasets as tfds

    def stored(key, decoders=None):
        dataset = builder.as_dataset(
            split=split, shuffle_files=False, decoders=decoders
        )
        return dataset.map(
            lambda example: example[key], num_parallel_calls=tf.data.AUTOTUNE
        )

    image_key, label_key = keys
    images = stored(image_key).map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    skip = {image_key: tfds.decode.SkipDecoding()}
    return images, stored(label_key, skip) if label_key else None
