"""What a request may hold, seen before it is sent."""

import numpy as np

from vae_tf.serving.errors import InvalidRequest

SEEDS = np.iinfo(np.int64)


def written(*sizes) -> str:
    """A shape, as this package writes one: [N, 2]."""
    return f"[{', '.join(map(str, sizes))}]"


def _array(name: str, value, kinds: str, expected: str) -> np.ndarray:
    """`value` as an array of at least one row, of a dtype of `kinds`."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidRequest(
            f"{name}: expected {expected}, received rows of several shapes."
        ) from None
    if array.ndim == 0 or len(array) == 0 or array.dtype.kind not in kinds:
        raise InvalidRequest(
            f"{name}: expected {expected}, at least one row of them, received "
            f"{written(*array.shape)} of {array.dtype}."
        )
    return array


def _floats(name: str, value, expected: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # Infinity is seen by who calls.
        return _array(name, value, "fiu", expected).astype(np.float32)


def _require(name: str, array: np.ndarray, is_right, expected: str) -> None:
    if not np.all(is_right):
        raise InvalidRequest(
            f"{name}: expected {expected}, received {array[~is_right].flat[0]}."
        )


def latents(value) -> np.ndarray:
    """z [N, D] as float32; raises InvalidRequest where it is none."""
    expected = "finite numbers [N, D]"
    z = _floats("z", value, expected)
    _require("z", z, np.isfinite(z), expected)
    return z


def pixels(value) -> np.ndarray:
    """x [N, H, W, C] as float32; raises InvalidRequest where it is none."""
    expected = "pixels in [0, 1], [N, H, W, C]"
    image = _floats("image", value, expected)
    _require("image", image, (image >= 0) & (image <= 1), expected)
    return image


def files(value) -> np.ndarray:
    """Contents of files [N], strings as `bytes`; raises InvalidRequest where
    they are none.
    """
    is_list = isinstance(value, (list, tuple, np.ndarray)) and len(value)
    kinds = {type(one) for one in value} if is_list else {type(value)}
    if not is_list or not kinds <= {bytes, np.bytes_}:
        raise InvalidRequest(
            "image_bytes: expected a list of the contents of files, bytes, "
            f"received {'one of ' * bool(is_list)}"
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}."
        )
    array = np.empty(len(value), object)
    array[:] = list(value)
    return array


def seeds(value) -> np.ndarray:
    """Seeds [N] as int64; raises InvalidRequest where they are none."""
    expected = "integers [N] of 64 bits"
    seed = _array("seed", value, "iu", expected)
    # Only an unsigned one can be too large, and NumPy compares it as it is.
    _require("seed", seed, seed <= SEEDS.max, expected)
    return seed.astype(np.int64)


# Name of an input -> its check.
ARGUMENTS = {
    "z": latents,
    "image": pixels,
    "image_bytes": files,
    "seed": seeds,
}
