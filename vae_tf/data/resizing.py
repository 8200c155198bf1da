"""One image of any size and mode -> uint8 pixels of the size and the channels
asked for."""

import numpy as np
import PIL.Image
import PIL.ImageOps

SIXTEEN_BITS = 2**16 - 1  # white, of 16-bit grey
GREY_MODES = ("1", "L", "LA")  # and those of 16 bits, I and I;16


def resized(
    image: PIL.Image.Image | np.ndarray, image_size: int | None, channels: int
) -> np.ndarray:
    """The image as it is meant to be looked at, cropped and resized.

    Upright as its EXIF orientation says; transparent pixels over white; 16-bit
    grey levels scaled to 8 bits.

    Args:
      image: a PIL image, or uint8 (or uint16 grey) pixels [H, W, C] with C of
        1, 3 or 4 (RGBA).
      image_size: height and width to which the largest centred square is
        resized; None keeps the image's own height and width.
      channels: 1 for grey, 3 for RGB.

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
    """Whether the image is stored without colours."""
    return image.mode in GREY_MODES or image.mode.startswith("I")


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """16-bit grey -> 8 bits, 65535 -> 255; PIL's own conversion would clip all
    above 255 to white.
    """
    levels = np.asarray(image).astype(np.int64)
    transparent = image.info.get("transparency")  # the level that means it
    if transparent is not None:
        levels[levels == transparent] = SIXTEEN_BITS
    levels = np.round(levels * (255 / SIXTEEN_BITS))
    return PIL.Image.fromarray(levels.astype(np.uint8))
