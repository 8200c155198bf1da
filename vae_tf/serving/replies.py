"""What a server's replies say, over either wire: a reply that says something
else is a BadReply.
"""

import functools
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from vae_tf.serving import errors

# Argument name -> (dtype, shape with -1 for any size).
Specs = dict[str, tuple[str, tuple[int, ...]]]
Parsed = TypeVar("Parsed")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


class State(str):
    """A version's state, which is AVAILABLE for one that answers; `error` says
    why one does not that failed, and is empty otherwise.
    """

    error: str = ""


class NotFinite(float):
    """NaN or infinity that a server wrote as such: a number too large for a
    float64 looks the same once it is read.
    """


def _excerpt(reply: Any) -> str:
    """What a message quotes of a reply, which may be large or deep."""
    return " ".join(_SHORT.repr(reply).split())


def read(expected: str, parse: Callable[[Any], Parsed], reply: Any) -> Parsed:
    """`parse(reply)`; raises BadReply where it fails."""
    try:
        return parse(reply)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise errors.BadReply(
            f"reply: expected {expected}, received {_excerpt(reply)} "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from None


def states(reply: dict) -> dict[int, State]:
    """Version -> state."""
    return {
        int(one.get("version", 0)): _state(one)
        for one in reply["model_version_status"]
    }


def _state(one: dict) -> State:
    state = State(one.get("state", "UNKNOWN"))
    status = one.get("status", {})
    code = status.get("error_code", "OK")  # gRPC leaves out what is zero.
    if code not in ("OK", 0):
        state.error = f"{code}: {status.get('error_message', '')}"
    return state


def written(states: dict[int, State]) -> list[str]:
    """A line per version, with its error."""
    return [
        f"version {version}: {state}" + f" ({state.error})" * bool(state.error)
        for version, state in sorted(states.items())
    ]


def signatures(reply: dict) -> dict[str, dict[str, Specs]]:
    """Signature name -> {"inputs": specs, "outputs": specs}."""

    def spec(tensor):
        dtype = tensor["dtype"].removeprefix("DT_").lower()
        dims = tensor["tensor_shape"].get("dim", ())
        return (
            {"float": "float32", "double": "float64"}.get(dtype, dtype),
            tuple(int(dim.get("size", 0)) for dim in dims),
        )

    return {
        name: {
            side: {key: spec(tensor) for key, tensor in one[side].items()}
            for side in ("inputs", "outputs")
        }
        for name, one in reply["signature_def"].items()
        if not name.startswith("__")  # the loader's own
    }


def version(reply: dict) -> int:
    """That of the metadata's model."""
    return int(reply["version"])


def outputs(reply: Any, specs: Specs, rows: int) -> dict[str, np.ndarray]:
    """The arrays of a reply that is what `specs` say: [rows, ...] each."""
    if len(specs) == 1 and not isinstance(reply, dict):
        reply = dict.fromkeys(specs, reply)  # REST leaves out a single name.
    if not isinstance(reply, dict) or set(reply) != set(specs):
        raise errors.BadReply(
            f"reply: expected outputs {sorted(specs)}, received "
            f"{_excerpt(reply)}."
        )
    return {
        key: read(
            f"{key} as {dtype} {[rows, *shape[1:]]}",
            functools.partial(_array, dtype=dtype, shape=(rows, *shape[1:])),
            reply[key],
        )
        for key, (dtype, shape) in specs.items()
    }


def _array(given: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """`given`, an array or nested lists, as an array; nothing in it becomes a
    number that is none.
    """
    wanted = np.dtype(object if dtype == "string" else dtype)
    array = np.array(given, getattr(given, "dtype", object))
    if array.shape != shape:
        raise ValueError(f"it is {list(array.shape)}")
    if array.dtype.kind != "O":
        if array.dtype != wanted:
            raise TypeError(f"it is {array.dtype}")
        return array
    kinds: dict[str, set[type]] = {
        "f": {int, float, NotFinite},
        "i": {int},
        "u": {int},
        "b": {bool},
        "O": {bytes},
    }
    others = set(map(type, array.flat)) - kinds[wanted.kind]
    if others:
        raise TypeError(f"it holds a {others.pop().__name__}")
    if wanted.kind != "f":
        return array.astype(wanted)
    wide = array.astype(np.float64)
    if any(type(one) is not NotFinite for one in array[np.isinf(wide)]):
        raise OverflowError("it holds a number too large")
    with np.errstate(over="raise"):
        return wide.astype(wanted)
