"""What the two transports of a served model, REST and gRPC, have in common:
they answer alike and fail alike.

Every request is asked again while the server is unavailable. That is safe: an
answer is a function of its request, in which the seeds stand."""

import functools
import itertools
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from vae_tf.serving import errors

# Argument name -> (dtype, shape with -1 for any size).
Specs = dict[str, tuple[str, tuple[int, ...]]]
Parsed = TypeVar("Parsed")
FIRST_PAUSE = 0.2  # seconds before a second try; doubles from try to try


class Transport:
    """One model of a server. Several threads may share it: what it remembers
    is replaced whole, never changed.

    Args:
      address: of the server.
      model: the name under which it serves the model.
      timeout: seconds of a request in all, its repetitions included.
      retries: how often a request is asked again of a server that is
        unavailable.
      max_message_bytes: largest request and reply.
    """

    def __init__(
        self,
        address: str,
        model: str,
        timeout: float,
        retries: int,
        max_message_bytes: int,
    ):
        self.address, self.model = address, model
        self.timeout, self.retries = timeout, retries
        self.max_message_bytes = max_message_bytes
        self._signatures: dict[str, dict[str, Specs]] | None = None

    def signatures(self, refresh: bool = False) -> dict[str, dict[str, Specs]]:
        """Signature name -> {"inputs": specs, "outputs": specs}, as the server
        said when it was first asked, or says now (`refresh`).

        Raises:
          ServingError: see its subclasses.
        """
        if refresh or self._signatures is None:
            reply = self._ask(self._ask_metadata)
            self._signatures = read("a model's signatures", _specs, reply)
        return self._signatures

    def predict(
        self,
        signature: str,
        inputs: dict[str, np.ndarray],
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature, [N, ...] each: strings as arrays of
        `bytes`, anything else in the dtype of `signatures`.

        Args:
          signature: its name.
          inputs: [N, ...] each, in the dtypes of `signatures`.
          version: of the model; None for the server's latest.

        Raises:
          ServingError: see its subclasses.
        """
        self._require(signature)
        reply = self._ask(self._ask_predict, signature, inputs, version)
        rows = len(next(iter(inputs.values())))
        try:
            return _outputs(reply, self._require(signature), rows)
        except errors.BadReply:
            # The server may have loaded a version with other shapes.
            self.signatures(refresh=True)
            return _outputs(reply, self._require(signature), rows)

    def status(self) -> dict[int, str]:
        """Version -> state, which is AVAILABLE for one that answers.

        Raises:
          ServingError: see its subclasses.
        """
        return self._states(self._ask(self._ask_status))

    def close(self) -> None:
        """Ends the connection."""

    # One request each, in the transport's own way, over by `deadline`.

    def _ask_metadata(self, deadline: float) -> Any:
        raise NotImplementedError

    def _ask_predict(
        self,
        deadline: float,
        signature: str,
        inputs: dict[str, np.ndarray],
        version: int | None,
    ) -> Any:
        raise NotImplementedError

    def _ask_status(self, deadline: float) -> Any:
        raise NotImplementedError

    def _require(self, signature: str) -> Specs:
        """The outputs of a signature that the server has."""
        for refresh in (False, True):
            known = self.signatures(refresh)
            if signature in known:
                return known[signature]["outputs"]
        raise errors.NotFound(
            f"signature: expected one of {', '.join(sorted(known))}, received "
            f"{signature!r}."
        )

    def _states(self, reply: Any) -> dict[int, str]:
        return read("the states of a model's versions", _states, reply)

    def _ask(self, ask: Callable, *arguments) -> Any:
        """What `ask(deadline, *arguments)` returns once the server is there."""
        deadline = time.monotonic() + self.timeout
        for attempt in itertools.count():
            try:
                return self._ask_once(ask, deadline, *arguments)
            except TimeoutError:
                raise self._failed(
                    errors.DeadlineExceeded, f"none in {self.timeout} s"
                ) from None
            except errors.Unavailable:
                # Of random length, or all clients of a server that comes back
                # would come at once.
                pause = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1)
                late = time.monotonic() + pause > deadline
                if attempt == self.retries or late:
                    raise
            time.sleep(pause)

    def _ask_once(self, ask: Callable, deadline: float, *arguments) -> Any:
        try:
            return ask(deadline, *arguments)
        except errors.NotFound:
            # A server that has yet to load a model does not find it, either.
            states = self._states(self._ask_status(deadline))
            if "AVAILABLE" in states.values():
                raise
            raise errors.Unavailable(
                f"{self.model}: expected a version that is AVAILABLE, received "
                f"{states}."
            ) from None

    def _require_fits(self, what: str, size: int) -> None:
        if size > self.max_message_bytes:
            raise errors.MessageTooLarge(
                f"{self.address}: expected a {what} of at most "
                f"{self.max_message_bytes} bytes, received {size}."
            )

    def _failed(
        self, kind: type[errors.ServingError], received: Any
    ) -> errors.ServingError:
        return kind(
            f"{self.address}: expected an answer of model {self.model!r}, "
            f"received {received}."
        )


def seconds_left(deadline: float) -> float:
    """Seconds until then; raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def read(expected: str, parse: Callable[[Any], Parsed], reply: Any) -> Parsed:
    try:
        return parse(reply)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.BadReply(
            f"reply: expected {expected}, received {str(reply)[:200]!r} "
            f"({error!r})."
        ) from None


def _states(reply: dict) -> dict[int, str]:
    return {
        int(one.get("version", 0)): one.get("state", "UNKNOWN")
        for one in reply["model_version_status"]
    }


def _specs(reply: dict) -> dict[str, dict[str, Specs]]:
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


def _array(given: Any, dtype: str) -> np.ndarray:
    return np.array(given, object if dtype == "string" else dtype)


def _outputs(reply: Any, specs: Specs, rows: int) -> dict[str, np.ndarray]:
    """The arrays of a reply that is what `specs` say."""
    if len(specs) == 1 and not isinstance(reply, dict):
        reply = dict.fromkeys(specs, reply)  # REST leaves out a single name.
    if not isinstance(reply, dict) or set(reply) != set(specs):
        raise errors.BadReply(
            f"reply: expected outputs {sorted(specs)}, received "
            f"{str(reply)[:200]!r}."
        )
    arrays = {}
    for key, (dtype, shape) in specs.items():
        value = read(
            f"{key} as {dtype}",
            functools.partial(_array, dtype=dtype),
            reply[key],
        )
        expected = (rows, *shape[1:])
        if value.shape != expected or (
            dtype == "string" and {type(one) for one in value.flat} != {bytes}
        ):
            raise errors.BadReply(
                f"reply: expected {key} as {dtype} {list(expected)}, received "
                f"{value.dtype} {list(value.shape)}."
            )
        arrays[key] = value
    return arrays
