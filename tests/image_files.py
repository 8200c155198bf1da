"""PNG and JPEG files of every kind, as bytes."""

import io
import struct
import zlib

import numpy as np
import PIL.Image

ORIENTATION = 0x0112  # EXIF's tag


def noise(height, width, channels=3, seed=0):
    """Random levels, each 8 pixels high and wide or more, so that JPEG keeps
    them; a PIL image.
    """
    size = (height // 8 + 1, width // 8 + 1, channels)
    levels = np.random.default_rng(seed).integers(0, 256, size)
    levels = levels.astype(np.uint8)
    image = PIL.Image.fromarray(levels[..., 0] if channels == 1 else levels)
    return image.resize((width, height), PIL.Image.Resampling.BICUBIC)


def png(image, **settings):
    return _saved(image, "PNG", settings)


def jpeg(image, **settings):
    return _saved(image, "JPEG", settings)


def _saved(image, kind, settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def turned(image, way, save=jpeg):
    """A file whose EXIF says `way`, 1 to 8."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = way
    exif[0x010F] = "a camera's maker"
    return save(image, exif=exif)


def raw_png(width, height, bits, kind, pixels=b""):
    """A PNG of 8-bit or 16-bit `pixels`, whatever its header claims."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", checksum)
        )

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(pixels)),
            chunk(b"IEND", b""),
        )
    )


def deep_png(kind, channels, height=20, width=24):
    """A PNG of 16-bit noise; `kind` is its colour type."""
    shape = (height, width, channels)
    levels = np.random.default_rng(kind).integers(0, 2**16, shape)
    rows = levels.astype(">u2").reshape(height, -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    return raw_png(width, height, 16, kind, pixels)


def readable():
    """Name -> a file that training reads."""
    colours, grey = noise(45, 70), noise(50, 40, 1)
    clear = colours.copy()
    clear.putalpha(noise(45, 70, 1, seed=1))
    few = colours.quantize(13)
    return {
        "rgb": png(colours),
        "square": png(noise(32, 32)),
        "tiny": png(noise(1, 1)),
        "grey": png(grey),
        "interlaced": png(colours, interlace=1),
        "animated": png(
            colours, save_all=True, append_images=[colours.rotate(180)]
        ),
        "alpha": png(clear),
        "grey_alpha": png(clear.convert("LA")),
        "palette": png(few),
        "palette_alpha": png(few, transparency=bytes(range(0, 260, 20))),
        "wide_palette": png(colours.quantize(200)),
        "one_bit": png(grey.convert("1")),
        "a_colour_is_clear": png(
            few.convert("RGB"),
            transparency=few.convert("RGB").getpixel((3, 3)),
        ),
        "deep_grey": deep_png(0, 1),
        "deep_rgb": deep_png(2, 3),
        "deep_grey_alpha": deep_png(4, 2),
        "deep_alpha": deep_png(6, 4),
        "jpeg": jpeg(colours),
        "progressive": jpeg(colours, progressive=True, quality=95),
        "grey_jpeg": jpeg(grey),
        "cmyk": jpeg(colours.convert("CMYK")),
        "turned": turned(colours, 6),
        "turned_png": turned(colours, 8, png),
    }


def unreadable():
    """Name -> what is no PNG or JPEG, or none that is whole."""
    whole, photo = png(noise(45, 70)), jpeg(noise(45, 70))
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    return {
        "empty": b"",
        "text": b"no image",
        "truncated": whole[: len(whole) // 2],
        "truncated_jpeg": photo[: len(photo) // 2],
        "header_alone": whole[:8],
        "jpeg_header_alone": photo[:3],
        "broken": bytes(broken),
        "gif": _saved(noise(45, 70), "GIF", {}),
        "bomb": raw_png(100_000, 100_000, 8, 2),
        "larger_bomb": raw_png(2**31 - 1, 2**31 - 1, 8, 2),
        "empty_size": raw_png(0, 0, 8, 2),
    }
