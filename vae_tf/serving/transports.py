"""What the transports of a served model have in common: they answer alike and
fail alike.

Every request is asked again while the server is unavailable. That is safe: an
answer is a function of its request, in which the seeds stand."""

import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vae_tf.serving import errors, replies
from vae_tf.serving.replies import Specs, State, read

FIRST_PAUSE = 0.2  # seconds before a second try; doubles from try to try
OVERHEAD = 1024  # bytes of a message, about, that are not its arrays'


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
      version: the one to ask; None for the server's latest.
      label: the server's name for the version to ask.
    """

    def __init__(
        self,
        address: str,
        model: str,
        timeout: float,
        retries: int,
        max_message_bytes: int,
        version: int | None = None,
        label: str | None = None,
    ):
        self.address, self.model = address, model
        self.timeout, self.retries = timeout, retries
        self.max_message_bytes = max_message_bytes
        self.version, self.label = version, label
        self._signatures: dict[str, dict[str, Specs]] | None = None

    def signatures(self, refresh: bool = False) -> dict[str, dict[str, Specs]]:
        """Signature name -> {"inputs": specs, "outputs": specs}, as the server
        said when it was first asked, or says now (`refresh`).

        Raises:
          ServingError: see its subclasses.
        """
        if refresh or self._signatures is None:
            with self._discreet():
                self._signatures, _ = self._metadata()
        return self._signatures

    def answering(self) -> int:
        """The version that answers now, unless a request names another.

        Raises:
          ServingError: see its subclasses.
        """
        if self.version is not None:
            return self.version
        with self._discreet():
            self._signatures, reply = self._metadata()
            return read("a model's version", replies.version, reply)

    def rows_that_fit(
        self, signature: str, inputs: dict[str, np.ndarray]
    ) -> int:
        """Rows of a request for which it and its reply are no larger than
        `max_message_bytes`, at least 1. An estimate: of strings that come back
        nobody knows the length.

        Raises:
          ServingError: see its subclasses.
        """
        request = sum(
            max(map(len, value.flat)) * 4 / 3  # in base64
            if value.dtype == object
            else math.prod(value.shape[1:]) * self._bytes_of(value.dtype)
            for value in inputs.values()
        )
        reply = read(
            "numbers and strings",
            lambda specs: sum(
                abs(math.prod(shape[1:])) * self._bytes_of(np.dtype(dtype))
                for dtype, shape in specs.values()
                if dtype != "string"
            ),
            self._require(signature),
        )
        room = self.max_message_bytes - OVERHEAD
        return max(1, int(room // max(request, reply, 1)))

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
          version: of the model; None for this transport's own.

        Raises:
          ServingError: see its subclasses.
        """
        with self._discreet():
            self._require(signature)
            reply = self._ask(self._ask_predict, signature, inputs, version)
            rows = len(next(iter(inputs.values())))
            try:
                return replies.outputs(reply, self._require(signature), rows)
            except errors.BadReply:
                # The server may have loaded a version with other shapes.
                self.signatures(refresh=True)
                return replies.outputs(reply, self._require(signature), rows)

    def status(self) -> dict[int, State]:
        """Version -> state, which is AVAILABLE for one that answers; of the
        version that is asked alone where it is named.

        Raises:
          ServingError: see its subclasses.
        """
        with self._discreet():
            # Of a label, servers say the state of all versions.
            version = self.answering() if self.label else self.version
            return self._states(self._ask(self._ask_status, version))

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

    def _ask_status(self, deadline: float, version: int | None) -> Any:
        raise NotImplementedError

    def _bytes_of(self, dtype: np.dtype) -> int:
        """Of one value in a message, at most."""
        return dtype.itemsize

    def _hide(self, text: str) -> str:
        """`text` without what is secret."""
        return text

    @contextlib.contextmanager
    def _discreet(self) -> Iterator[None]:
        """Errors, which quote servers, say no secret."""
        try:
            yield
        except errors.ServingError as error:
            error.args = (self._hide(str(error)),)
            raise

    def _metadata(self) -> tuple[dict[str, dict[str, Specs]], Any]:
        """The signatures of the version that answers, and what they were read
        from.
        """
        reply = self._ask(self._ask_metadata)
        return read("a model's signatures", replies.signatures, reply), reply

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

    def _states(self, reply: Any) -> dict[int, State]:
        return read("the states of a model's versions", replies.states, reply)

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
            states = self._states(self._ask_status(deadline, self.version))
            if "AVAILABLE" in states.values():
                raise
            raise errors.Unavailable(
                f"{self.model}: expected a version that is AVAILABLE, received "
                f"{', '.join(replies.written(states)) or 'none'}."
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
