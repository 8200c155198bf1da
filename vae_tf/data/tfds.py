"""Images from TensorFlow Datasets: whatever has an image feature."""

import math
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.config import SPLITS
from vae_tf.data.cache import cached, key_of
from vae_tf.data.disk_images import on_disk
from vae_tf.data.resizing import resized
from vae_tf.data.splits import (
    Images,
    Labels,
    Source,
    fits_memory,
    split_rows,
    take_rows,
)
from vae_tf.settings import UserError

# Seconds to wait for a dataset's host before calling it unreachable.
REACH_TIMEOUT = 4.0
# Examples that are parsed together, and bytes of pixels decoded together.
AT_A_TIME, BYTES = 250, 2**24
# After a name: ":3.0.1" where TFDS is asked, "/3.0.1" where it answers.
VERSION = re.compile(r"[:/](\d+\.\d+\.\d+)$")


def is_known(name: str) -> bool:
    """Whether TFDS has a dataset of this name, whatever its version."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    return VERSION.sub("", name) in known


def load_tfds(
    name: str,
    data_dir: str | None,
    image_size: int | None,
    channels: int | None,
) -> Source:
    """A TFDS dataset of images, decoded once for all processes (see `cache`):
    in memory where it fits, else on disk.

    Args:
      name: as TFDS knows it, such as "mnist", "mnist:3.0.1" or "mnist/3.0.1".
      data_dir: TFDS data directory; None means TFDS's own default.
      image_size: height and width asked for; None where all have one size.
      channels: 1, 3, or None: as stored (RGBA becomes RGB over white).

    Raises:
      UserError: it is unknown, holds no uint8 images, or, with `image_size`
        unset, images of several sizes; it is neither prepared in `data_dir` nor
        downloadable, or prepared as other than TFRecord files; or it fits
        neither memory nor the disk.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir)
    keys = _features(builder)
    stored_shape = builder.info.features[keys[0]].shape
    shape = _shape(builder.name, stored_shape, image_size, channels)
    if not builder.is_prepared():
        _download(builder)
    file_format = builder.info.file_format
    if file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(
            "--dataset: expected a dataset prepared as TFRecord files, TFDS's "
            f"default, received {name!r} as {file_format.value}."
        )

    sizes = {
        split: info.num_examples for split, info in builder.info.splits.items()
    }
    sizes = {split: n for split, n in sizes.items() if split in SPLITS} or sizes
    rows = split_rows(sizes)
    wanted = sorted({split for split, _ in rows.values()})
    # What turns stored images into these is in the version.
    words = (vae_tf.__version__, builder.info.full_name, wanted, keys, shape)
    if fits_memory(sum(sizes.values()), shape):
        stored = _in_memory(builder, wanted, words, keys, shape)
    else:
        stored = _on_disk(builder, wanted, words, keys, shape)
    images = {
        split: take_rows(stored[whole][0], part)
        for split, (whole, part) in rows.items()
    }
    labels = {
        split: take_rows(stored[whole][1], part)
        for split, (whole, part) in rows.items()
    }
    # Some datasets store bits as 0/1, not 0/255 (binarized_mnist). A thousand
    # images, one by one, tell them apart.
    train = images["train"]
    first = (train[row : row + 1] for row in range(min(1000, len(train))))
    levels = 2 if all(np.max(image) <= 1 for image in first) else 256
    return Source(name, builder.info.full_name, levels, images, labels)


def _builder(name: str, data_dir: str | None):
    """What TFDS makes of the name."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

    name_of_tfds = VERSION.sub(r":\1", name)
    try:
        parsed, _ = naming.parse_builder_name_kwargs(name_of_tfds)
        if parsed.namespace:  # Another library's, with errors of its own.
            raise ValueError(f"the namespace {parsed.namespace} is not read")
        return tfds.builder(name_of_tfds, data_dir=data_dir)
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,  # another version than there is
        TypeError,  # an argument in the name
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            "--dataset: expected a TFDS image dataset, 'digits', a folder of "
            f"images or an .npz of arrays, received {name!r} ({reason})."
        ) from None


def _features(builder) -> list[str]:
    """The key of the image and, where there is one, of its class label."""
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
    return images[:1] + labels[:1]


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


def _examples(
    builder, split: str, keys: list[str], batch_size: int = AT_A_TIME
) -> tf.data.Dataset:
    """Batches of what is stored of a split, shard by shard: encoded images [B],
    labels [B].

    A batch of records is parsed at once. TFDS parses one by one, which takes
    longer than to decode a small image.
    """
    image_key, *label_key = keys
    features = {image_key: tf.io.FixedLenFeature((), tf.string)}
    for key in label_key:
        features[key] = tf.io.FixedLenFeature((), tf.int64)
    files = [str(path) for path in builder.info.splits[split].filepaths]
    return (
        tf.data.TFRecordDataset(files)
        .batch(batch_size)
        .map(lambda records: tf.io.parse_example(records, features))
    )


def _decoded(
    builder, split: str, keys: list[str], shape: tuple[int, int, int]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of a split: images [B, H, W, C] of that shape and, where there
    are any, labels [B].
    """
    image_key, *label_key = keys
    feature = builder.info.features[image_key]

    def pixels_of(stored):
        image = feature.decode_example(stored)
        if shape == feature.shape:
            return image
        size = shape[0] if shape[:2] != feature.shape[:2] else None
        return tf.numpy_function(
            lambda image: resized(image, size, shape[2]), [image], tf.uint8
        )

    def decoded(examples):
        images = tf.map_fn(
            pixels_of,
            examples[image_key],
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
        return images, *(examples[key] for key in label_key)

    batch_size = max(min(AT_A_TIME, BYTES // math.prod(shape)), 1)
    examples = _examples(builder, split, keys, batch_size)
    return examples.map(
        decoded, num_parallel_calls=tf.data.AUTOTUNE
    ).as_numpy_iterator()


def _in_memory(
    builder,
    splits: list[str],
    words: tuple,
    keys: list[str],
    shape: tuple[int, int, int],
) -> dict[str, tuple[Images, Labels]]:
    """`(images [N, H, W, C] uint8, labels [N] or None)` of each split, decoded
    by the first process that asks for these files.
    """

    def read_all():
        arrays = {}
        for split in splits:
            batches = zip(*_decoded(builder, split, keys, shape), strict=True)
            images, *labels = map(np.concatenate, batches)
            arrays[f"{split}/images"] = images
            if labels:
                arrays[f"{split}/labels"] = labels[0]
        return arrays

    files = [path for path in builder.data_path.iterdir() if path.is_file()]
    arrays = cached(key_of(words, files), read_all)
    return {
        split: (arrays[f"{split}/images"], arrays.get(f"{split}/labels"))
        for split in splits
    }


def _on_disk(
    builder,
    splits: list[str],
    words: tuple,
    keys: list[str],
    shape: tuple[int, int, int],
) -> dict[str, tuple[Images, Labels]]:
    """`_in_memory` of images that do not fit there."""
    # Not of the files' contents, which would take as long as to read them.
    stats = [
        (path.name, path.stat().length, path.stat().mtime)
        for path in sorted(builder.data_path.iterdir())
    ]
    key = key_of((*words, stats), [])

    def images(split):
        return on_disk(
            f"{key}-{split}",
            builder.info.splits[split].num_examples,
            shape,
            lambda: (part[0] for part in _decoded(builder, split, keys, shape)),
        )

    def labels(split):
        examples = _examples(builder, split, keys).as_numpy_iterator()
        return np.concatenate([part[keys[1]] for part in examples])

    def read_labels():
        return {split: labels(split) for split in splits}

    found = cached(f"{key}-labels", read_labels) if keys[1:] else {}
    return {split: (images(split), found.get(split)) for split in splits}
