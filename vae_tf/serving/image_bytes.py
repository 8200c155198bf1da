"""PNG and JPEG files -> the levels that training would have read of them, in a
graph that runs without Python: `data.resizing`, once more.

A file that is no image raises for itself alone, and only in here: TensorFlow's
decoders would raise for the whole batch."""

import math

import tensorflow as tf

from vae_tf.data.conversion import Conversion
from vae_tf.serving import rows
from vae_tf.serving.orientation import bytes_of, chunk, upright

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Of a file, of which a few bytes may claim any number: some 0.7 GB at work. A
# quarter of what training takes.
MAX_PIXELS = 2**24
LOBES = 3  # of Lanczos' kernel, on either side
WHITE, SIXTEEN_BITS = 255, 2**16 - 1


def images(
    files: tf.Tensor,
    keys: tf.Tensor,
    image_shape: tuple[int, int, int],
    conversion: Conversion,
) -> tf.Tensor:
    """Files [N] -> the pixels that a model sees of them [N, H, W, C]; NaN of
    what is no image.

    Args:
      files, image_shape: see `levels`.
      keys: [N, 2], of what the conversion draws.
      conversion: that of the model's own data.
    """
    stored, is_image = levels(files, image_shape)
    # As many levels as that data had.
    grey = tf.cast(stored, tf.float32) / WHITE
    stored = tf.cast(tf.round(grey * (conversion.levels - 1)), tf.int32)
    numbers = {"bit": rows.BIT, "level": rows.LEVEL}
    pixels = conversion.pixels(
        stored,
        lambda purpose: rows.uniform(keys, numbers[purpose], image_shape),
    )
    return rows.where(is_image, pixels)


def levels(
    files: tf.Tensor, image_shape: tuple[int, int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Files [N] -> levels from 0 to 255 [N, H, W, C], int32, and whether each
    is an image [N]; levels are 0 where it is none, or has more than
    16,777,216 pixels.

    Args:
      files: PNG or JPEG, strings [N].
      image_shape: `(H, W, C)`, with C of 1 or 3. The largest centred part of
        that ratio is resized.
    """
    # Where nothing is found, tf.data shall have one element all the same.
    nothing = tf.data.Dataset.from_tensors(
        (tf.constant(-1, tf.int64), tf.zeros(image_shape, tf.int32))
    )
    count = tf.shape(files, tf.int64)[0]
    options = tf.data.Options()
    options.autotune.enabled = False
    found = (
        tf.data.Dataset.from_tensor_slices(files)
        .enumerate()
        .map(lambda row, file: (row, _levels(file, image_shape)))
        .ignore_errors()
        .concatenate(nothing)
        .batch(count + 1)
        .with_options(options)
        .get_single_element()
    )
    places, images = (value[:-1] for value in found)
    places = places[:, tf.newaxis]
    shape = tf.stack([count, *image_shape])
    return (
        tf.scatter_nd(places, images, shape),
        tf.scatter_nd(places, tf.ones_like(places[:, 0]), [count]) > 0,
    )


def _levels(file: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """One file's levels [H, W, C]; raises where it is no image."""
    height, width, channels = image_shape
    is_png = tf.strings.substr(file, 0, len(PNG)) == PNG
    image = tf.cond(is_png, lambda: _png(file), lambda: _jpeg(file))
    image = upright(image, file, is_png)
    image = _grey(image) if channels == 1 else image
    return tf.ensure_shape(_fitted(image, height, width), image_shape)


def _png(file: tf.Tensor) -> tf.Tensor:
    """Levels [H, W, 3], transparent pixels over white."""
    # Of its first chunk, IHDR: width, height, bits, and what they are.
    data = bytes_of(file)
    size = tf.reduce_sum(
        tf.reshape(data[16:24], (2, 4)) * [2**24, 2**16, 2**8, 1], axis=1
    )
    bits, kind = data[24], data[25]
    with tf.control_dependencies([_small(size[1], size[0])]):
        file = tf.identity(file)
    # Where there is no transparency, TensorFlow gives alpha in as few bits as
    # the file has, and colours in eight.
    is_opaque = (bits < 8) & (chunk(data, b"tRNS") < 0)
    # Of sixteen bits, a colour keeps the upper eight, and grey is rounded: as
    # PIL reads them, and `resizing`.
    is_deep_grey = (bits == 16) & (kind == 0)
    return tf.case(
        [
            (is_opaque, lambda: tf.io.decode_png(file, 3)),
            (is_deep_grey, lambda: _over_white(_eight_bits(file))),
        ],
        lambda: _over_white(tf.io.decode_png(file, 4)),
    )


def _eight_bits(file: tf.Tensor) -> tf.Tensor:
    image = tf.cast(tf.io.decode_png(file, 4, tf.uint16), tf.float32)
    return tf.round(image * (WHITE / SIXTEEN_BITS))


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """RGBA [H, W, 4] -> RGB, in PIL's own arithmetic."""
    image = tf.cast(image, tf.int32)
    alpha = image[..., 3:]
    mixed = 128 * (image[..., :3] * alpha + WHITE * (WHITE - alpha) + 128)
    return tf.cast(((mixed // 256 + mixed) // 256) // 128, tf.uint8)


def _jpeg(file: tf.Tensor) -> tf.Tensor:
    """Levels [H, W, 3]."""
    # Or the library prints a line for each file that is something else.
    begins = tf.strings.substr(file, 0, len(JPEG))
    with tf.control_dependencies([tf.debugging.assert_equal(begins, JPEG)]):
        file = tf.identity(file)
    height, width, _ = tf.unstack(
        tf.cast(tf.io.extract_jpeg_shape(file), tf.int64)
    )
    with tf.control_dependencies([_small(height, width)]):
        file = tf.identity(file)
    # As PIL decodes it.
    return tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE")


def _small(height: tf.Tensor, width: tf.Tensor) -> tf.Operation:
    # By division: a product of what a header may say could be anything.
    return tf.debugging.assert_less_equal(
        height,
        MAX_PIXELS // tf.maximum(width, 1),
        f"expected an image of at most {MAX_PIXELS} pixels",
    )


def _grey(image: tf.Tensor) -> tf.Tensor:
    """RGB [H, W, 3] -> luma [H, W, 1], in PIL's own arithmetic (ITU-R 601)."""
    image = tf.cast(image, tf.int32) * [19595, 38470, 7471]
    return (tf.reduce_sum(image, -1, keepdims=True) + 2**15) // 2**16


def _fitted(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The largest centred part of the ratio `width` : `height`, resized to
    these by Lanczos' kernel, as `PIL.ImageOps.fit` does it: one axis after the
    other, and in whole levels between.
    """
    shape = tf.cast(tf.shape(image)[:2], tf.float64)
    ratio = width / height
    part = tf.minimum(shape, tf.reverse(shape, [0]) * [1 / ratio, ratio])
    start = (shape - part) / 2
    columns = _kernels(start[1], part[1], shape[1], width)
    rows = _kernels(start[0], part[0], shape[0], height)
    # [H', W', C] -> [C, H', W] -> [C, H, W] -> [H, W, C]
    planes = tf.cast(tf.transpose(image, (2, 0, 1)), tf.float32)
    # Pillow 13's rule; an older one may always begin with the columns.
    excess = shape - [height, width]
    planes = tf.cond(
        (excess[0] > 0) & (excess[0] > 2 * excess[1]),
        lambda: _columns(_rows(planes, rows), columns),
        lambda: _rows(_columns(planes, columns), rows),
    )
    return tf.cast(tf.transpose(planes, (1, 2, 0)), tf.int32)


def _columns(planes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return _whole(tf.matmul(planes, weights, transpose_b=True))


def _rows(planes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return _whole(tf.matmul(weights, planes))


def _whole(levels: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.floor(levels + 0.5), 0.0, float(WHITE))


def _kernels(start, part, size, count: int) -> tf.Tensor:
    """Weights [count, size] of the pixels in the mean that each new one is, of
    a part of them from `start` on.
    """
    step = part / count
    centres = start + (tf.range(count, dtype=tf.float64) + 0.5) * step
    places = tf.range(size, dtype=tf.float64) + 0.5
    # In widths of a lobe, which is no narrower than a pixel.
    x = (places - centres[:, tf.newaxis]) / tf.maximum(step, 1.0)
    weights = _sinc(x) * _sinc(tf.clip_by_value(x / LOBES, -1.0, 1.0))
    weights /= tf.reduce_sum(weights, 1, keepdims=True)
    return tf.cast(weights, tf.float32)


def _sinc(x: tf.Tensor) -> tf.Tensor:
    x = tf.maximum(math.pi * tf.abs(x), 1e-20)  # which is even
    return tf.sin(x) / x
