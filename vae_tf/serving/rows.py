"""What holds of each row of a request by itself, whatever stands beside it."""

import tensorflow as tf

# Of `key_of`, beside the numbers from 0 on of `score`'s chunks: what else a
# seed draws.
POSTERIOR, BIT, LEVEL = -1, -2, -3

Outputs = dict[str, tf.Tensor]


def require(value: tf.Tensor, *row: int) -> tf.Tensor:
    """`value`, which is [N, *row] with N >= 1, or the request is an
    INVALID_ARGUMENT.
    """
    value = tf.ensure_shape(value, (None, *row))
    tf.debugging.assert_positive(
        tf.shape(value)[0], "expected at least one row, received none"
    )
    return value


def keys_of(seed: tf.Tensor, name: str, beside: tf.Tensor) -> tf.Tensor:
    """`keys` of seeds [N], one for each row of the input `name`, which is
    `beside` them.
    """
    tf.debugging.assert_equal(
        tf.shape(beside)[0],
        tf.shape(seed)[0],
        f"{name}, seed: expected as many rows of each",
    )
    return keys(seed)


def keys(seed: tf.Tensor) -> tf.Tensor:
    """Seeds int64 [N] -> [N, 2]: an int64 is the pair of int32 that
    TensorFlow's stateless generators take.
    """
    return tf.bitcast(require(seed), tf.int32)


def z_and_x_keys(keys: tf.Tensor) -> list[tf.Tensor]:
    """Keys [N, 2] -> those of draws of z and of x, [N, 2] each."""
    pairs = tf.map_fn(
        lambda key: tf.random.experimental.stateless_split(key, 2),
        keys,
        fn_output_signature=tf.TensorSpec((2, 2), tf.int32),
    )
    return tf.unstack(pairs, axis=1)


def normal(keys: tf.Tensor, number, shape: tuple[int, ...]) -> tf.Tensor:
    """Standard-normal draws [N, *shape]: of each key [N, 2], those of a
    number.
    """
    return _drawn(tf.random.stateless_normal, keys, number, shape)


def uniform(keys: tf.Tensor, number, shape: tuple[int, ...]) -> tf.Tensor:
    """As `normal`, in [0, 1)."""
    return _drawn(tf.random.stateless_uniform, keys, number, shape)


def _drawn(draw, keys, number, shape) -> tf.Tensor:
    return tf.map_fn(
        lambda key: draw(
            shape, tf.random.experimental.stateless_fold_in(key, number)
        ),
        keys,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def in_range(image: tf.Tensor) -> tf.Tensor:
    """Whether each pixel is in [0, 1], which NaN is not."""
    return (image >= 0) & (image <= 1)


def where(valid: tf.Tensor, output: tf.Tensor, other=float("nan")) -> tf.Tensor:
    """`output` [N, ...] as float32, with `other` in the rows where any of
    `valid` [N, ...] is false.
    """
    rows = tf.reduce_all(valid, axis=range(1, valid.shape.rank))
    rows = tf.reshape(
        rows, (-1, *[1] * (output.shape.rank - 1))
    )  # [N] -> [N, 1, ...]
    return tf.where(rows, tf.cast(output, tf.float32), other)


def finite(outputs: Outputs) -> Outputs:
    """Outputs with zeros in the rows where any of them is no finite number, and
    `valid` bool [N], which is false there.
    """
    valid = tf.reduce_all(
        [
            tf.reduce_all(tf.math.is_finite(value), range(1, value.shape.rank))
            for value in outputs.values()
        ],
        axis=0,
    )
    zeros = {key: where(valid, value, 0.0) for key, value in outputs.items()}
    return zeros | {"valid": valid}
