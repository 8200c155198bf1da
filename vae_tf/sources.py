"""Where images come from: a TFDS dataset or scikit-learn's digits -> uint8
images of three splits.

Nothing here depends on a run's seed: every run, on every machine, sees the same
splits in the same order."""

import dataclasses
import pathlib
import urllib.error
import urllib.parse
import urllib.request
import warnings

import numpy as np
import tensorflow as tf

from vae_tf.config import SPLITS, UserError

MEMORY_LIMIT = (
    2 * 2**30
)  # bytes of uint8 images; a larger dataset is streamed from disk
REACH_TIMEOUT = (
    4.0  # seconds to wait for a dataset's host before calling it unreachable
)
CUT_KEY = 0x7AE  # Philox key of the permutation that cuts a missing split


@dataclasses.dataclass(frozen=True)
class Source:
    """Splits of one dataset, as stored: pixel k of `levels` equally spaced grey
    levels from 0 to 1.

    Attributes:
      name: what loads it again, such as "mnist".
      variant: name and version.
      levels: number of grey levels; 2 for data that is binary already.
      images: by split, a uint8 array [N, H, W, C], or a `tf.data.Dataset` of
        [H, W, C] where memory is short.
      labels: by split, the integer labels [N] (or a `tf.data.Dataset` of them)
        in the order of the images, or None.
    """

    name: str
    variant: str
    levels: int
    images: dict[str, np.ndarray | tf.data.Dataset]
    labels: dict[str, np.ndarray | tf.data.Dataset | None]


def load_source(dataset: str | None, data_dir: str | None) -> Source:
    """The images called `dataset`; unset means MNIST, or digits, loudly, where
    MNIST is out of reach.

    Raises:
      UserError: a dataset that was named is unknown, not images of one size, or
        neither prepared in `data_dir` nor downloadable.
    """
    if dataset == "digits":
        return _digits()
    if dataset is not None:
        return _tfds(dataset, data_dir)
    try:
        return _tfds("mnist", data_dir)
    except UserError as error:
        warnings.warn(
            "no --dataset was named and MNIST is out of reach, so this run "
            "uses scikit-learn's 8x8 digits "
            f"instead: its numbers say nothing about MNIST. Why: {error}",
            stacklevel=2,
        )
        return _digits()


def _split_rows(
    sizes: dict[str, int],
) -> dict[str, tuple[str, np.ndarray | slice]]:
    """Split -> (stored split, rows of it). A missing one is a tenth of `train`,
    cut by a fixed permutation.
    """
    pool = "train" if "train" in sizes else max(sizes, key=sizes.get)
    rows = {
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


def _digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels: the data
    that is always at hand.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]  # [1797, 8, 8, 1]
    rows = _split_rows({"train": len(images)})
    return Source(
        name="digits",
        variant="digits (scikit-learn)",
        levels=17,
        images={split: images[chosen] for split, (_, chosen) in rows.items()},
        labels={
            split: digits.target[chosen] for split, (_, chosen) in rows.items()
        },
    )


def _tfds(name: str, data_dir: str | None) -> Source:
    """A TFDS dataset with images of one size: decoded once into memory where it
    fits, else streamed.
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
            "--dataset: expected a TFDS image dataset or 'digits', received "
            f"{name!r} ({reason})."
        ) from None
    image_key, label_key = _features(builder)
    if not builder.is_prepared():
        _download(builder)

    shape = builder.info.features[image_key].shape
    sizes = {
        split: info.num_examples for split, info in builder.info.splits.items()
    }
    sizes = {split: n for split, n in sizes.items() if split in SPLITS} or sizes
    rows = _split_rows(sizes)
    read = (
        _read
        if sum(sizes.values()) * int(np.prod(shape)) <= MEMORY_LIMIT
        else _stream
    )
    stored = {
        split: read(builder, split, image_key, label_key)
        for split in {s for s, _ in rows.values()}
    }
    images = {
        split: _rows(stored[s][0], chosen)
        for split, (s, chosen) in rows.items()
    }
    labels = {
        split: _rows(stored[s][1], chosen)
        for split, (s, chosen) in rows.items()
    }
    # Some datasets store bits as 0/1, not 0/255 (binarized_mnist). A thousand
    # images tell them apart.
    train = images["train"]
    first = (
        train[:1000]
        if isinstance(train, np.ndarray)
        else np.stack(list(train.take(1000)))
    )
    return Source(
        name,
        builder.info.full_name,
        2 if first.max() <= 1 else 256,
        images,
        labels,
    )


def _features(builder) -> tuple[str, str | None]:
    """The keys of the image and of its class label (None without one)."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features or {})
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    ]
    if not images:
        raise UserError(
            "--dataset: expected a dataset with an image feature, received "
            f"{builder.name!r}."
        )
    image = features[images[0]]
    if None in image.shape or image.np_dtype != np.uint8:
        raise UserError(
            "--dataset: expected uint8 images of one size, received "
            f"{builder.name!r} with "
            f"{np.dtype(image.np_dtype).name} images of shape {image.shape}."
        )
    labels = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    ]
    return images[0], labels[0] if labels else None


def _download(builder) -> None:
    """Prepares a dataset. TFDS itself retries for minutes without a network, so
    look at the host first.
    """
    from tensorflow_datasets.core import download

    data_dir = pathlib.Path(builder.data_path).parents[1]
    place = f"prepared in {data_dir} or downloadable"
    for url in list(builder.url_infos)[:1]:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=REACH_TIMEOUT).close()
        except urllib.error.HTTPError:
            pass  # It answered, if not to this: the host is there.
        except OSError as error:
            raise UserError(
                f"--dataset: expected a dataset {place}, received "
                f"{builder.name!r} "
                f"({urllib.parse.urlsplit(url).netloc}: "
                f"{getattr(error, 'reason', error)})."
            ) from None
    try:
        builder.download_and_prepare()
    except (
        OSError,
        AssertionError,  # TFDS's word for "download it by hand"
        download.download_manager.NonMatchingChecksumError,
        download.util.DownloadError,
    ) as error:
        raise UserError(
            f"--dataset: expected a dataset {place}, received {builder.name!r} "
            f"({error})."
        ) from None


def _read(builder, split: str, image_key: str, label_key: str | None):
    """`(images [N, H, W, C] uint8, labels [N] or None)`, decoded once."""
    dataset = builder.as_dataset(split=split, shuffle_files=False).batch(1000)
    images, labels = [], []
    for example in dataset.as_numpy_iterator():
        images.append(example[image_key])
        labels.append(example[label_key] if label_key else [])
    return np.concatenate(images), np.concatenate(labels) if label_key else None


def _stream(builder, split: str, image_key: str, label_key: str | None):
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

    skip = {image_key: tfds.decode.SkipDecoding()}
    return stored(image_key), stored(label_key, skip) if label_key else None


def _rows(
    stored: np.ndarray | tf.data.Dataset | None, rows: np.ndarray | slice
):
    """The chosen rows of what a split holds, in their stored order."""
    if stored is None or isinstance(rows, slice):
        return stored
    if isinstance(stored, np.ndarray):
        return stored[rows]
    chosen = np.zeros(len(stored), bool)
    chosen[rows] = True
    mask = tf.constant(chosen)
    kept = (
        stored.enumerate()
        .filter(lambda row, _: mask[row])
        .map(lambda _, element: element)
    )
    return kept.apply(tf.data.experimental.assert_cardinality(len(rows)))
