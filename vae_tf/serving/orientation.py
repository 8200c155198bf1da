"""The way up of a picture, as a camera wrote it into the file (EXIF)."""

import tensorflow as tf

ORIENTATION = 0x0112  # its tag
# Of a file, what is looked at before its pixels.
MOST_PARTS, MOST_BYTES = 64, 2**20


def upright(image: tf.Tensor, file: tf.Tensor, is_png: tf.Tensor) -> tf.Tensor:
    """The image [H, W, C] as it is meant to be looked at.

    Args:
      image: as it is stored.
      file: a string, the PNG or JPEG that it was read of.
      is_png: whether it is the former, a scalar.
    """
    data = bytes_of(file)
    start = tf.cond(
        is_png, lambda: chunk(data, b"eXIf"), lambda: _of_jpeg(data)
    )
    way = tf.where(start < 0, tf.cast(1, tf.int64), _way(data, start))

    def where(ways, change):
        turned = tf.reduce_any(way == tf.constant(ways, tf.int64))
        return tf.cond(turned, lambda: change(image), lambda: image)

    image = where([5, 6, 7, 8], lambda image: tf.transpose(image, (1, 0, 2)))
    image = where([2, 3, 6, 7], lambda image: image[:, ::-1])
    return where([3, 4, 7, 8], lambda image: image[::-1])


def bytes_of(file: tf.Tensor) -> tf.Tensor:
    """The first of a string, int64."""
    first = tf.strings.substr(file, 0, MOST_BYTES)
    return tf.cast(tf.io.decode_raw(first, tf.uint8), tf.int64)


def _bytes(data: tf.Tensor, start, count: int) -> tf.Tensor:
    """`count` of them from `start` on; past the end, the last again."""
    places = tf.cast(start, tf.int64)[..., tf.newaxis] + tf.range(
        count, dtype=tf.int64
    )
    last = tf.size(data, tf.int64) - 1
    return tf.gather(data, tf.clip_by_value(places, 0, last))


def _is(data: tf.Tensor, start, text: bytes) -> tf.Tensor:
    return tf.reduce_all(_bytes(data, start, len(text)) == list(text))


def _number(data: tf.Tensor, start, count: int, little=False) -> tf.Tensor:
    """The one that bytes are, the most significant first or last."""
    powers = tf.constant([256**n for n in range(count)], tf.int64)
    powers = tf.where(little, powers, powers[::-1])
    return tf.reduce_sum(_bytes(data, start, count) * powers, -1)


def _of_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Where EXIF begins, or -1: in a segment of the marker FF E1."""

    def goes_on(place):
        return (
            ~_is(data, place, b"\xff\xe1") | ~_is(data, place + 4, b"Exif\0\0")
        ) & ~_is(data, place, b"\xff\xda")

    place = _walk(
        data, goes_on, 2, lambda place: place + 2 + _number(data, place + 2, 2)
    )
    found = _is(data, place + 4, b"Exif\0\0")
    return tf.where(found, place + 10, -1)


def chunk(data: tf.Tensor, name: bytes) -> tf.Tensor:
    """Where the content of a chunk of a PNG begins, or -1 where there is none
    of that name before the pixels.
    """

    def goes_on(place):
        return ~_is(data, place + 4, name) & ~_is(data, place + 4, b"IDAT")

    place = _walk(
        data, goes_on, 8, lambda place: place + 12 + _number(data, place, 4)
    )
    return tf.where(_is(data, place + 4, name), place + 8, -1)


def _walk(data, goes_on, first: int, after) -> tf.Tensor:
    """The first part of a file, of those from the byte `first` on, at which it
    does not go on.
    """
    (place,) = tf.while_loop(
        lambda place: (place < tf.size(data, tf.int64)) & goes_on(place),
        lambda place: (after(place),),
        (tf.constant(first, tf.int64),),
        maximum_iterations=MOST_PARTS,
    )
    return place


def _way(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """1 to 8, as TIFF numbers them, of the first directory of tags."""
    little = _is(data, start, b"II")
    directory = start + _number(data, start + 4, 4, little)
    count = _number(data, directory, 2, little)
    tags = directory + 2 + 12 * tf.range(tf.minimum(count, 256))
    right = _number(data, tags, 2, little) == ORIENTATION
    ways = _number(data, tags + 8, 2, little)
    return tf.reduce_max(tf.where(right, ways, 1))
