"""One image of any size and mode -> uint8 pixels of the size and the channels
asked for."""

import numpy as np
import PIL.Image
import PIL.ImageOps

SIXTEEN_BITS = 2**16 - 1  # white, of 16-bit grey
GREY_MODES = ("1", "L", "LA", "F")  # and those of 16 bits, I and I;16


def resized(
    image: PIL.Image.Image | np.ndarray, image_size: int | None, channels: int
) -> np.ndarray:
    """The image as it is meant to be looked at, cropped and resized.

    Upright as its EXIF orientation says; transparent pixels over white; 16-bit
    grey levels scaled to 8 bits; floats from 0 to 1, or else to 255.

    Args:
      image: a PIL image, or uint8 (or uint16 grey) pixels [H, W, C] with C of
        1, 3 or 4 (RGBA).
      image_size: height and width to which the largest centred square is
        resized; None keeps the image's own height and width.
      channels: 1 for grey, 3 for RGB.

    Raises:
      ValueError: grey levels lie outside those ranges.

    Returns:
      uint8 pixels [H, W, channels].
    """
    if isinstance(image, np.ndarray):
        # PIL knows grey images only without an axis of channels.
        image = PIL.Image.fromarray(
            image[..., 0] if image.shape[-1] == 1 else image
        )
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode == "F":
        image = _from_floats(image)
    if image.mode.endswith("A") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        image = PIL.ImageOps.fit(
            image,
            (image_size, image_size),
            method=PIL.Image.Resampling.LANCZOS,
        )
    return np.array(image).reshape(image.height, image.width, channels)


def is_grey(image: PIL.Image.Image) -> bool:
    """Whether the image is stored without colours, or with a palette of greys
    alone.
    """
    if image.mode == "P":
        colours = np.reshape(image.getpalette() or [], (-1, 3))
        return bool(np.all(colours == colours[:, :1]))
    return image.mode in GREY_MODES or image.mode.startswith("I")


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """16-bit grey -> 8 bits, 65535 -> 255; PIL's own conversion would clip all
    above 255 to white.
    """
    levels = np.asarray(image).astype(np.int64)
    transparent = image.info.get("transparency")  # the level that means it
    if transparent is not None:
        levels[levels == transparent] = SIXTEEN_BITS
    if levels.min() < 0 or levels.max() > SIXTEEN_BITS:
        raise ValueError(
            f"grey levels from {levels.min()} to {levels.max()}, outside 0 to "
            f"{SIXTEEN_BITS}"
        )
    levels = np.round(levels * (255 / SIXTEEN_BITS))
    return PIL.Image.fromarray(levels.astype(np.uint8))


def _from_floats(image: PIL.Image.Image) -> PIL.Image.Image:
    """Floats -> 8 bits: [0, 1] -> [0, 255], and [0, 255] as it is."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # nor is NaN
        raise ValueError(
            f"floats from {low} to {high}, outside [0, 1] and [0, 255]"
        )
    levels = np.round(255 * values if high <= 1 else values)
    return PIL.Image.fromarray(levels.astype(np.uint8))
