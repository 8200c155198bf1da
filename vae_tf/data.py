"""Images as models see them: `tf.data` of [B, H, W, C] float32 in [0, 1],
binarised where asked.

Validation and test are binarised once, from a constant of this package: the
same bits in every run on every machine. Training draws its order and its
dynamic bits from the seed and the number of the epoch alone, so that a resumed
run sees what an uninterrupted one would have seen."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from vae_tf.config import GREY_VALUES, LIKELIHOODS, SPLITS, Config, UserError
from vae_tf.sources import Source, load_source

NOISE_KEY = 0xB17  # Philox key of the bits drawn once
PREFETCH = 8  # batches
SHUFFLE_BUFFER = 10_000  # images, where a dataset is streamed


def load_data(
    dataset: str | None = None,
    *,
    data_dir: str | None = None,
    likelihood: str = "bernoulli",
    binarization: str | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> "Data":
    """Train, validation and test images of a dataset, ready for `VAE.fit`.

    Args:
      dataset: a TFDS image dataset or "digits"; None means MNIST, or digits,
        with a warning, where MNIST is neither prepared nor downloadable.
      data_dir: TFDS data directory; None means `$TFDS_DATA_DIR`, else TFDS's
        own default.
      likelihood: family of p(x|z), which decides the binarisation where that is
        None.
      binarization: "none"; "threshold" (x >= 1/2); "static" (x ~ Bernoulli(grey
        level), drawn once); "dynamic" (drawn anew each epoch in training, once
        in validation and test).
      batch_size: images per batch; the last batch may be shorter.
      seed: of the training order and noise. Splits and evaluation data never
        depend on it.

    Raises:
      UserError: the dataset is unknown or out of reach, or the likelihood does
        not describe its pixels.
    """
    Config(  # checks them
        dataset=dataset,
        data_dir=data_dir,
        likelihood=likelihood,
        binarization=binarization,
        batch_size=batch_size,
        seed=seed,
    )
    source = load_source(dataset, data_dir)
    if source.levels == 2:
        # Binary already: each of the three would give back the same bits.
        binarization = "none"
    elif binarization is None:
        binarization = (
            "dynamic" if LIKELIHOODS[likelihood] == "binary" else "none"
        )
    elif binarization == "none" and LIKELIHOODS[likelihood] == "binary":
        raise UserError(
            f"--binarization: expected threshold, static or dynamic for a "
            f"{likelihood} likelihood on the {source.levels} grey levels of "
            f"{source.name}, received 'none': {GREY_VALUES}."
        )
    return Data(source, binarization, batch_size, seed)


@dataclasses.dataclass
class Data:
    """Three splits of images, `[B, H, W, C]` float32 in [0, 1], as
    `tf.data.Dataset`s.

    `train` comes in a new order at each pass; `validation` and `test` keep the
    stored one.
    """

    source: Source
    binarization: str
    batch_size: int
    seed: int

    def __post_init__(self):
        self._pass = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.train = self._train()
        self.validation = self.in_order("validation")
        self.test = self.in_order("test")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        images = self.source.images["train"]
        return tuple(
            images.shape[1:]
            if isinstance(images, np.ndarray)
            else images.element_spec.shape
        )

    @property
    def num_examples(self) -> dict[str, int]:
        """Images by split."""
        return {split: len(self.source.images[split]) for split in SPLITS}

    def labels(self, split: str) -> np.ndarray | None:
        """Integer labels [N] of a split's images in their stored order; None
        where the source has none.
        """
        labels = self.source.labels[split]
        return (
            np.array(list(labels))
            if isinstance(labels, tf.data.Dataset)
            else labels
        )

    def start_epoch(self, epoch: int) -> None:
        """Makes the next pass over `train` that of `epoch`, counted from 0;
        else each pass is one further.
        """
        self._pass.assign(epoch - 1)

    def describe(self) -> dict[str, Any]:
        """What a number measured on this data must carry to be comparable, for
        `config.json`.
        """
        return {
            "variant": self.source.variant,
            "levels": self.source.levels,
            "image_shape": list(self.image_shape),
            "splits": self.num_examples,
            "checksum": self._checksum(),
        }

    def in_order(
        self,
        split: str,
        batch_size: int | None = None,
        limit: int | None = None,
    ):
        """The (first `limit`) images of a split in their stored order, the same
        bits at every pass.
        """
        images = self._stored(
            split, drawn=self.binarization in ("static", "dynamic")
        )
        if isinstance(images, np.ndarray):
            images = tf.data.Dataset.from_tensor_slices(images)
        images = images.take(-1 if limit is None else limit).batch(
            batch_size or self.batch_size
        )
        return _ahead(images.map(self._pixels))

    def _stored(self, split: str, drawn: bool) -> np.ndarray | tf.data.Dataset:
        """A split's uint8 images as the source holds them or, `drawn`, as the
        bits drawn once from them.
        """
        images = self.source.images[split]
        if not drawn:
            return images
        draw = functools.partial(
            _drawn_once, levels=self.source.levels, split=split
        )
        if isinstance(images, np.ndarray):
            return draw(0, images)
        shape = (None, *self.image_shape)
        batches = images.batch(self.batch_size).enumerate()
        bits = batches.map(
            lambda batch, x: tf.ensure_shape(
                tf.numpy_function(draw, [batch * self.batch_size, x], tf.uint8),
                shape,
            )
        ).unbatch()
        return bits.apply(tf.data.experimental.assert_cardinality(len(images)))

    def _train(self) -> tf.data.Dataset:
        count = self.num_examples["train"]
        images = self._stored("train", drawn=self.binarization == "static")
        in_memory = isinstance(images, np.ndarray)
        table = tf.constant(images) if in_memory else None

        def one_pass(_):
            # Order and noise of a pass are functions of the seed and its
            # number: nothing else to remember.
            key = tf.stack(
                [tf.constant(self.seed, tf.int64), self._pass.assign_add(1)]
            )
            if in_memory:
                order = tf.random.experimental.stateless_shuffle(
                    tf.range(count), seed=key
                )
                batches = tf.data.Dataset.from_tensor_slices(order).batch(
                    self.batch_size
                )
                batches = batches.map(lambda rows: tf.gather(table, rows))
            else:
                # The op's seed joins one of its graph, which else would be
                # whatever `tf.random.set_seed` was last called with.
                tf.random.set_seed(1)
                buffer = min(count, SHUFFLE_BUFFER)
                batches = images.shuffle(
                    buffer, seed=tf.reduce_sum(key * [1_000_003, 1])
                )
                batches = batches.batch(self.batch_size)
            return batches.enumerate().map(
                lambda step, x: self._training_pixels(x, key, step)
            )

        dataset = tf.data.Dataset.from_tensors(0).flat_map(one_pass)
        steps = -(-count // self.batch_size)
        return _ahead(
            dataset.apply(tf.data.experimental.assert_cardinality(steps))
        )

    def _training_pixels(
        self, images: tf.Tensor, key: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        if self.binarization == "dynamic":
            seed = tf.random.experimental.stateless_fold_in(key, step)
            # x ~ Bernoulli(k / (levels - 1))
            grey = tf.cast(images, tf.float32) / (self.source.levels - 1)
            return tf.cast(
                tf.random.stateless_uniform(tf.shape(images), seed) < grey,
                tf.float32,
            )
        return self._pixels(images)

    def _pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Stored pixels or bits -> float32 in [0, 1]."""
        if self.binarization == "none":
            return tf.cast(images, tf.float32) / (self.source.levels - 1)
        if self.binarization == "threshold":
            return tf.cast(
                2 * tf.cast(images, tf.int32) >= self.source.levels - 1,
                tf.float32,
            )
        return tf.cast(images, tf.float32)

    def _checksum(self) -> str:
        """SHA-256 of the stored images; of name, version and sizes where they
        are streamed.
        """
        digest = hashlib.sha256(
            f"{self.source.variant} {self.num_examples}".encode()
        )
        for split in SPLITS:
            if isinstance(images := self.source.images[split], np.ndarray):
                digest.update(np.ascontiguousarray(images))
        return f"sha256:{digest.hexdigest()}"


def _ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Prepares batches while the model is busy with others.

    Without tf.data's autotuning: its thread, which an iterator waits for at the
    end of its life, held up one epoch in four of a small model for its length.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(PREFETCH).with_options(options)


def _drawn_once(
    first: int, images: np.ndarray, levels: int, split: str
) -> np.ndarray:
    """x ~ Bernoulli(k / (levels - 1)) per pixel, as uint8; row i has noise of
    its own, whatever the batch.

    Raw Philox words, and not a Generator's methods, because only their stream
    is promised never to change."""
    bits = np.empty_like(images)
    for row, image in enumerate(images, start=int(first)):
        philox = np.random.Philox(
            key=NOISE_KEY, counter=[0, 0, SPLITS.index(split), row]
        )
        uniform = (
            philox.random_raw(image.size) >> np.uint64(11)
        ) * 2.0**-53  # in [0, 1)
        bits[row - int(first)] = uniform.reshape(image.shape) < image / (
            levels - 1
        )
    return bits
