"""Grey levels -> the pixels that a model sees."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What becomes of level k of `levels`.

    Attributes:
      levels: L, how many there are.
      binarization: "none"; "threshold" (1 where k / (L - 1) >= 1/2); "dynamic"
        (1 with probability k / (L - 1)); "static" (so, and before `pixels`).
      dequantization: "uniform" (x = (k + u) / L with u uniform in [0, 1)) or
        "none" (x = k / (L - 1)), where bits are two levels.
    """

    levels: int
    binarization: str
    dequantization: str

    @classmethod
    def of(cls, support: str, trained_on: Mapping[str, Any]) -> "Conversion":
        """That of a new image for the model of a run, as `Data.describe` tells
        of its data; where it does not, what a likelihood of that support needs
        of 8-bit images.
        """
        bits = "dynamic" if support == "binary" else "none"
        bits = trained_on.get("binarization", bits)
        noise = "uniform" if support == "interval" else "none"
        return cls(
            trained_on.get("levels", 256),
            # Bits of a new image have yet to be drawn.
            "dynamic" if bits == "static" else bits,
            trained_on.get("dequantization", noise),
        )

    @property
    def levels_after(self) -> int:
        """Of the pixels, once they are bits or not."""
        return self.levels if self.binarization == "none" else 2

    def pixels(
        self, images: tf.Tensor, noise: Callable[[str], tf.Tensor]
    ) -> tf.Tensor:
        """x `[B, H, W, C]`, float32.

        Args:
          images: levels, or bits that were drawn once, integers.
          noise: "bit" or "level" -> uniform in [0, 1), of the same shape.
        """
        if self.binarization == "dynamic":
            grey = tf.cast(images, tf.float32) / (self.levels - 1)
            images = tf.cast(noise("bit") < grey, tf.float32)
        elif self.binarization == "threshold":
            images = 2 * tf.cast(images, tf.int32) >= self.levels - 1
        images = tf.cast(images, tf.float32)
        if self.dequantization == "uniform":
            return (images + noise("level")) / self.levels_after
        return self.scaled(images)

    def scaled(self, images: tf.Tensor) -> tf.Tensor:
        """Levels as float32 -> [0, 1]; for bits, no pass over the batch."""
        if self.levels_after == 2:
            return images
        return images / (self.levels_after - 1)
