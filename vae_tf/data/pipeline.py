"""Images as models see them: `tf.data` of [B, H, W, C] float32 in [0, 1],
binarised or dequantised where asked.

Validation and test are binarised or dequantised once, from a constant of this
package: the same pixels in every run on every machine. Training draws its order
and its noise from the seed and the number of the epoch alone, so that a resumed
run sees what an uninterrupted one would have seen."""

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import tensorflow as tf

from vae_tf.config import SPLITS, Config
from vae_tf.data.arrays import load_arrays
from vae_tf.data.conversion import Conversion
from vae_tf.data.disk_images import DiskImages, window
from vae_tf.data.sources import Source, load_source
from vae_tf.data.splits import uniform_of_image
from vae_tf.data.support import suited
from vae_tf.executions import InStep, place_of
from vae_tf.noise import key, uniform
from vae_tf.passes import set_up_once
from vae_tf.settings import UserError

NOISE_KEY = 0xB17  # Philox key of the bits drawn once
DEQUANTIZATION_KEY = 0xDE9  # and of the noise within a level
PREFETCH = 8  # batches
WINDOW = 2**24  # bytes of images on disk that are shuffled among each other


def load_data(
    dataset: str | os.PathLike | None = None,
    *,
    images: Any = None,
    labels: Any = None,
    levels: int | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    likelihood: str = "bernoulli",
    binarization: str | None = None,
    dequantization: str | None = None,
    batch_size: int = 256,
    seed: int = 0,
    numbered: bool = False,
) -> "Data":
    """Train, validation and test images of a dataset, or of arrays, ready for
    `VAE.fit`.

    Args:
      dataset: a TFDS image dataset, "digits" or the path of a folder of images
        (see `vae_tf.data.listing`) or of an .npz (`vae_tf.data.npz`); None
        means MNIST, or digits, with a warning, where MNIST is neither prepared
        nor downloadable.
      images: in place of a dataset, arrays `[N, H, W]` or `[N, H, W, C]` with C
        of 1 or 3: one, which is cut into splits, a pair (train, test), a triple
        (train, validation, test) or a dict by split. Integers are grey levels,
        floats in [0, 1] level / (levels - 1).
      labels: of `images`, integers `[N]`, in the same form.
      levels: of `images`, how many grey levels there are; None means 2 where
        all pixels are 0 or 1, else 256.
      data_dir: TFDS data directory; None means `$TFDS_DATA_DIR`, else TFDS's
        own default.
      image_size: height and width to which images are cropped and resized;
        None keeps their own.
      channels: 1 for grey, 3 for RGB; None keeps what is stored.
      likelihood: family of p(x|z), which decides binarisation and
        dequantisation where these are None.
      binarization: "none"; "threshold" (x >= 1/2); "static" (x ~ Bernoulli(grey
        level), drawn once); "dynamic" (drawn anew each epoch in training, once
        in validation and test).
      dequantization: "uniform" (x = (k + u) / levels with u uniform in [0, 1),
        drawn anew each epoch in training, once in validation and test), which
        a density needs, or it grows without bound at the levels; or "none".
      batch_size: images per batch; the last batch may be shorter.
      seed: of the training order and noise. Splits and evaluation data never
        depend on it.
      numbered: see `Data`; bits are then drawn once unless told otherwise.

    Raises:
      UserError: the dataset is unknown or out of reach, the arrays are no
        images, or the likelihood does not describe their pixels.
    """
    config = Config(  # checks them
        dataset=dataset,
        data_dir=data_dir,
        image_size=image_size,
        channels=channels,
        likelihood=likelihood,
        binarization=binarization,
        dequantization=dequantization,
        batch_size=batch_size,
        seed=seed,
    )
    source = _source(config, images, labels, levels)
    binarization, dequantization = suited(
        source, likelihood, binarization, dequantization, redrawn=not numbered
    )
    return Data(
        source, binarization, batch_size, seed, dequantization, numbered
    )


def _source(config: Config, images: Any, labels: Any, levels: Any) -> Source:
    """The dataset that `config` names, or the arrays in its place."""
    refused = {"labels": labels, "levels": levels}
    if images is not None:
        names = ("dataset", "image_size", "channels")
        refused = {name: getattr(config, name) for name in names}
    for name, value in refused.items():
        if value is not None:
            beside = "without" if images is None else "beside"
            raise UserError(
                f"{name}: expected None {beside} images, received {value!r}."
            )
    if images is not None:
        return load_arrays(images, labels, levels)
    return load_source(
        cast(str | None, config.dataset),  # no longer a Path
        config.data_dir,
        config.image_size,
        config.channels,
    )


@dataclasses.dataclass
class Data:
    """Three splits of images, `[B, H, W, C]` float32 in [0, 1], each a
    `tf.data.Dataset`.

    `train` comes in a new order at each pass; `validation` and `test` keep the
    stored one. `after(n)` is `train` from batch n of each pass on, counted from
    0. With `numbered`, the batches of `train` and `validation` are
    dicts of `image` and `row`, int32 `[B]`, numbers in the stored order.
    """

    source: Source
    binarization: str
    batch_size: int
    seed: int
    dequantization: str = "none"
    numbered: bool = False

    def __post_init__(self):
        self._pass = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.after = self._passes()
        self.train = self.after(0)

    @functools.cached_property
    def validation(self) -> tf.data.Dataset:
        """Made when it is first asked for, because that draws its noise."""
        images = self.in_order("validation")
        if not self.numbered:
            return images
        count = self.num_examples["validation"]
        rows = tf.data.Dataset.range(count, output_type=tf.int32)
        rows = rows.batch(self.batch_size)
        return tf.data.Dataset.zip({"image": images, "row": rows})

    @functools.cached_property
    def test(self) -> tf.data.Dataset:
        """As `validation`."""
        return self.in_order("test")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return tuple(self.source.images["train"].shape[1:])

    @property
    def num_examples(self) -> dict[str, int]:
        """Images by split."""
        return {split: len(self.source.images[split]) for split in SPLITS}

    def labels(self, split: str) -> np.ndarray | None:
        """Integer labels [N] of a split's images in their stored order; None
        where the source has none.
        """
        return self.source.labels[split]

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
            "binarization": self.binarization,
            "dequantization": self.dequantization,
        }

    def in_order(
        self,
        split: str,
        batch_size: int | None = None,
        limit: int | None = None,
    ):
        """The (first `limit`) images of a split in their stored order, the same
        pixels at every pass.
        """
        batch_size = batch_size or self.batch_size
        images = self.source.images[split]
        limit = len(images) if limit is None else min(limit, len(images))
        if isinstance(images, np.ndarray):
            drawn = tf.constant(self._drawn_once(0, images[:limit], split))
            elements = _cut(tf.range(limit), batch_size)

            def images_of(rows):
                return self._as_floats(tf.gather(drawn, rows))

        else:
            images_of = self._as_floats

            def read(first):
                rows = slice(first, min(first + batch_size, limit))
                return self._drawn_once(first, images[rows], split)

            def batch(first):
                return tf.ensure_shape(
                    tf.numpy_function(read, [first], read(0).dtype),
                    (None, *self.image_shape),
                )

            elements = tf.data.Dataset.range(0, limit, batch_size).map(batch)
        dataset = _ahead(elements.map(images_of))
        elements = _ahead(elements)
        dataset.in_step = InStep(elements, images_of, lambda: elements)
        return dataset

    def _passes(self) -> Callable[[int], tf.data.Dataset]:
        """Number of a batch -> `train` from that batch on of each pass, as a
        pass that was interrupted goes on.
        """
        images = self.source.images["train"]
        if in_memory := isinstance(images, np.ndarray):
            if self.binarization == "static":
                images = self._bits_once(0, images, "train")
            table = tf.constant(images)
            batches_of = self._rows
        elif self.numbered:
            raise UserError(
                "--inference: expected amortized for more images than memory "
                "takes, whose rows are not known, received mean_field."
            )
        else:
            batches_of = functools.partial(self._pixels, images)
        steps = -(-len(images) // self.batch_size)

        def one_pass(_):
            # Order and noise of a pass are functions of the seed and its
            # number: nothing else to remember.
            number = self._pass.assign_add(1)
            # Of each step: that of the pass, and below it its own.
            numbers = number * 2**32 + tf.range(steps, dtype=tf.int64)
            numbers = tf.data.Dataset.from_tensor_slices(numbers)
            batches = batches_of(key("order", self.seed, number))
            return tf.data.Dataset.zip({"stored": batches, "number": numbers})

        def images_of(element):
            rows = stored = element["stored"]
            if in_memory:
                stored = tf.gather(table, stored)
            images = self._training_pixels(stored, element["number"])
            return {"image": images, "row": rows} if self.numbered else images

        def after(first):
            elements = tf.data.Dataset.from_tensors(0).flat_map(one_pass)
            elements = elements.skip(first).apply(
                tf.data.experimental.assert_cardinality(steps - first)
            )
            dataset = _ahead(elements.map(images_of))
            elements = _ahead(elements)
            begin = set_up_once(
                lambda: _ahead(one_pass(0).skip(first)), elements.element_spec
            )
            dataset.in_step = InStep(elements, images_of, begin)
            return dataset

        return after

    def _rows(self, key: tf.Tensor) -> tf.data.Dataset:
        """Batches of the numbers of all training images, in a new order."""
        order = tf.range(self.num_examples["train"])
        order = tf.random.experimental.stateless_shuffle(order, seed=key)
        return _cut(order, self.batch_size)

    def _pixels(self, images: DiskImages, key: tf.Tensor) -> tf.data.Dataset:
        """Batches of all training images on disk, in a new order."""
        size = max(WINDOW // math.prod(self.image_shape), self.batch_size)

        def drawn(first, pixels):
            if self.binarization == "static":
                return self._bits_once(first, pixels, "train")
            return pixels

        def read(number):
            pixels = tf.numpy_function(
                lambda key, number: window(images, key, number, size, drawn),
                [key, number],
                tf.uint8,
            )
            return tf.ensure_shape(pixels, (None, *self.image_shape))

        windows = tf.data.Dataset.range(-(-len(images) // size)).map(read)
        return windows.rebatch(self.batch_size)

    @property
    def conversion(self) -> Conversion:
        """What becomes of a stored pixel."""
        return Conversion(
            self.source.levels, self.binarization, self.dequantization
        )

    def _training_pixels(
        self, images: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        """Stored pixels, or static bits, `[B, H, W, C]` -> float32, with the
        noise of a step's number; the same compiled and not, but for rounding.
        """
        place = place_of(images)

        def noise(purpose):
            shape = place.total, math.prod(self.image_shape)
            draws = place.of(uniform(shape, key(purpose, self.seed, number)))
            return tf.reshape(draws, tf.shape(images))

        return self.conversion.pixels(images, noise)

    def _drawn_once(
        self, first: int, images: np.ndarray, split: str
    ) -> np.ndarray:
        """Stored pixels of the images from number `first` on -> float32 where
        they are dequantised, else levels as uint8; the same in every run.
        """
        if self.binarization == "threshold":
            middle = self.source.levels - 1
            images = (2 * images.astype(np.int32) >= middle).astype(np.uint8)
        elif self.binarization != "none":
            images = self._bits_once(first, images, split)
        if self.dequantization == "none":
            return images
        # x = (k + u) / levels
        pixels = np.empty(images.shape, np.float32)
        for row, image in enumerate(images):
            noise = uniform_of_image(
                DEQUANTIZATION_KEY, split, first + row, image.shape
            )
            pixels[row] = (image + noise) / self.conversion.levels_after
        return pixels

    def _bits_once(
        self, first: int, images: np.ndarray, split: str
    ) -> np.ndarray:
        """x ~ Bernoulli(k / (levels - 1)) per pixel, as uint8."""
        bits = np.empty_like(images)
        for row, image in enumerate(images):
            noise = uniform_of_image(NOISE_KEY, split, first + row, image.shape)
            bits[row] = noise < image / (self.source.levels - 1)
        return bits

    def _as_floats(self, images: tf.Tensor) -> tf.Tensor:
        """What `_drawn_once` gave -> float32 in [0, 1]."""
        if self.dequantization == "uniform":
            return images
        return self.conversion.scaled(tf.cast(images, tf.float32))

    def _checksum(self) -> str:
        """SHA-256 of the stored images; of name, version and sizes where they
        are on disk.
        """
        digest = hashlib.sha256(
            f"{self.source.variant} {self.num_examples}".encode()
        )
        for split in SPLITS:
            if isinstance(images := self.source.images[split], np.ndarray):
                digest.update(np.ascontiguousarray(images).data)
        return f"sha256:{digest.hexdigest()}"


def _cut(numbers: tf.Tensor, batch_size: int) -> tf.data.Dataset:
    """Batches of numbers, where `Dataset.batch` would take each by itself."""
    whole, rest = divmod(numbers.shape[0], batch_size)
    blocks = tf.reshape(numbers[: whole * batch_size], (whole, batch_size))
    batches = tf.data.Dataset.from_tensor_slices(blocks)
    if not rest:
        return batches
    return batches.concatenate(tf.data.Dataset.from_tensors(numbers[-rest:]))


def _ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Prepares batches while the model is busy with others.

    Without tf.data's autotuning: its thread, which an iterator waits for at the
    end of its life, held up one epoch in four of a small model for its length.
    And without its rewriting, which costs more than it saves at each pass.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    dataset = dataset.prefetch(PREFETCH).with_options(options)
    # Workers may each go through all of it, and take their own rows.
    dataset.same_in_all_workers = True
    return dataset
