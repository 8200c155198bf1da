"""A served model over REST or gRPC: two transports that answer alike and fail
alike, of which REST needs the standard library and NumPy only.

Every request is asked again while the server is unavailable. That is safe: an
answer is a function of its request, in which the seeds stand."""

import base64
import http.client
import itertools
import json
import random
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import numpy as np

from vae_tf.config import UserError

# Argument name -> (dtype, shape with -1 for any size).
Specs = dict[str, tuple[str, tuple[int, ...]]]
FIRST_PAUSE = 0.2  # seconds before a second try; doubles from try to try
PIECE = 1 << 16  # bytes read of a reply before the clock is looked at


class ServingError(Exception):
    """A request without an answer."""


class InvalidRequest(ServingError, UserError):
    """A request that the model cannot answer, seen by the client or by the
    server.
    """


class NotFound(ServingError):
    """The server knows no such model, version or signature."""


class Unavailable(ServingError):
    """No connection, one that broke, or a model that is not loaded."""


class DeadlineExceeded(ServingError):
    """No answer in time."""


class MessageTooLarge(ServingError):
    """A request or a reply of more than `max_message_bytes`."""


class ResourceExhausted(ServingError):
    """The server has no memory or no quota left for this request."""


class BadReply(ServingError):
    """A reply that is no answer to the request."""


class ServerError(ServingError):
    """Any other failure inside the server."""


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
        self._signatures = None

    def signatures(self, refresh: bool = False) -> dict[str, dict[str, Specs]]:
        """Signature name -> {"inputs": specs, "outputs": specs}, as the server
        said when it was first asked, or says now (`refresh`).

        Raises:
          ServingError: see its subclasses.
        """
        if refresh or self._signatures is None:
            reply = self._ask(self._ask_metadata)
            self._signatures = _read("a model's signatures", _specs, reply)
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
        except BadReply:
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

    def _require(self, signature: str) -> Specs:
        """The outputs of a signature that the server has."""
        for refresh in (False, True):
            known = self.signatures(refresh)
            if signature in known:
                return known[signature]["outputs"]
        raise NotFound(
            f"signature: expected one of {', '.join(sorted(known))}, received "
            f"{signature!r}."
        )

    def _states(self, reply: Any) -> dict[int, str]:
        return _read("the states of a model's versions", _states, reply)

    def _ask(self, ask: Callable, *arguments) -> Any:
        """What `ask(deadline, *arguments)` returns once the server is there."""
        deadline = time.monotonic() + self.timeout
        for attempt in itertools.count():
            try:
                return self._ask_once(ask, deadline, *arguments)
            except TimeoutError:
                raise self._failed(
                    DeadlineExceeded, f"none in {self.timeout} s"
                ) from None
            except Unavailable:
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
        except NotFound:
            # A server that has yet to load a model does not find it, either.
            states = self._states(self._ask_status(deadline))
            if "AVAILABLE" in states.values():
                raise
            raise Unavailable(
                f"{self.model}: expected a version that is AVAILABLE, received "
                f"{states}."
            ) from None

    def _require_fits(self, what: str, size: int) -> None:
        if size > self.max_message_bytes:
            raise MessageTooLarge(
                f"{self.address}: expected a {what} of at most "
                f"{self.max_message_bytes} bytes, received {size}."
            )

    def _failed(self, kind: type[ServingError], received: Any) -> ServingError:
        return kind(
            f"{self.address}: expected an answer of model {self.model!r}, "
            f"received {received}."
        )


class Rest(Transport):
    """REST: JSON over HTTP. `address` is the server's URL."""

    STATUSES = {
        400: InvalidRequest,
        404: NotFound,
        413: MessageTooLarge,
        429: ResourceExhausted,
        502: Unavailable,
        503: Unavailable,
        504: DeadlineExceeded,
    }

    def _ask_status(self, deadline):
        return self._exchange(deadline, "GET", "")

    def _ask_metadata(self, deadline):
        reply = self._exchange(deadline, "GET", "/metadata")
        return _read(
            "metadata", lambda given: given["metadata"]["signature_def"], reply
        )

    def _ask_predict(self, deadline, signature, inputs, version):
        lists = {key: value.tolist() for key, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": lists})
        place = "" if version is None else f"/versions/{version}"
        reply = self._exchange(
            deadline, "POST", f"{place}:predict", body.encode()
        )
        return _read("outputs", lambda given: given["outputs"], reply)

    def _exchange(self, deadline, method, path, body=None):
        self._require_fits("request", len(body or ""))
        try:
            code, content = self._transfer(deadline, method, path, body)
        except TimeoutError:
            raise
        except (OSError, http.client.IncompleteRead) as error:
            raise self._failed(Unavailable, repr(error)) from None
        except http.client.HTTPException as error:
            raise self._failed(BadReply, f"no HTTP: {error!r}") from None
        if code != 200:
            # As text: the server escapes quotes in a way that JSON does not.
            text = content.decode(errors="replace").strip()[:500]
            raise self._failed(
                self.STATUSES.get(code, ServerError), f"HTTP {code}: {text}"
            )
        try:
            return json.loads(content, object_hook=_unpacked)
        except (ValueError, TypeError) as error:
            raise self._failed(
                BadReply, f"{content[:200]!r} ({error})"
            ) from None

    def _transfer(self, deadline, method, path, body) -> tuple[int, bytes]:
        # A connection of its own for each request: threads share none, and
        # none goes stale.
        url = urllib.parse.urlsplit(self.address)
        connection = (
            http.client.HTTPSConnection
            if url.scheme == "https"
            else http.client.HTTPConnection
        )(url.hostname, url.port, timeout=_left(deadline))
        model = urllib.parse.quote(self.model, safe="")
        try:
            connection.request(
                method,
                f"{url.path.rstrip('/')}/v1/models/{model}{path}",
                body,
                {"Content-Type": "application/json"},
            )
            # `getresponse` may let go of the socket before it is read.
            socket = connection.sock
            socket.settimeout(_left(deadline))
            response = connection.getresponse()
            length, content = response.length, bytearray()
            self._require_fits("reply", length or 0)
            while length is None or len(content) < length:
                # A timeout of a socket is that of one piece.
                socket.settimeout(_left(deadline))
                piece = response.read1(PIECE)
                content += piece
                self._require_fits("reply", len(content))
                if not piece:
                    break
            if length is not None and len(content) < length:
                raise ConnectionResetError(f"{len(content)} of {length} bytes")
            return response.status, bytes(content)
        finally:
            connection.close()


class Grpc(Transport):
    """gRPC: protocol buffers over HTTP/2. `address` is the server's
    `host:port`.
    """

    CODES = {
        "INVALID_ARGUMENT": InvalidRequest,
        # As over REST, where these three are one.
        "FAILED_PRECONDITION": InvalidRequest,
        "OUT_OF_RANGE": InvalidRequest,
        "NOT_FOUND": NotFound,
        "RESOURCE_EXHAUSTED": ResourceExhausted,
        "UNAVAILABLE": Unavailable,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
    }

    def __init__(self, *arguments, **kwargs):
        super().__init__(*arguments, **kwargs)
        # Here, because they import TensorFlow, which REST does without.
        import grpc
        from tensorflow_serving.apis import (
            model_service_pb2_grpc,
            prediction_service_pb2_grpc,
        )

        self._channel = grpc.insecure_channel(
            self.address,
            options=[
                ("grpc.max_send_message_length", self.max_message_bytes),
                ("grpc.max_receive_message_length", self.max_message_bytes),
                # Or a retry would not even look whether the server is back.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def close(self):
        self._channel.close()

    def _ask_status(self, deadline):
        from tensorflow_serving.apis import get_model_status_pb2

        return _json_of(
            self._exchange(
                deadline,
                self._models.GetModelStatus,
                get_model_status_pb2.GetModelStatusRequest(),
            )
        )

    def _ask_metadata(self, deadline):
        from tensorflow_serving.apis import get_model_metadata_pb2

        reply = self._exchange(
            deadline,
            self._prediction.GetModelMetadata,
            get_model_metadata_pb2.GetModelMetadataRequest(
                metadata_field=["signature_def"]
            ),
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return _json_of(signatures)

    def _ask_predict(self, deadline, signature, inputs, version):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        size = sum(value.nbytes for value in inputs.values())
        self._require_fits("request", size)
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        reply = self._exchange(deadline, self._prediction.Predict, request)
        return _read(
            "tensors",
            lambda given: {k: tf.make_ndarray(v) for k, v in given.items()},
            reply.outputs,
        )

    def _exchange(self, deadline, call, request):
        import grpc

        request.model_spec.name = self.model
        try:
            return call(request, timeout=_left(deadline))
        except grpc.RpcError as error:
            code, detail = error.code().name, error.details() or ""
            kind = self.CODES.get(code, ServerError)
            # gRPC has one code for this and for a server without memory.
            if kind is ResourceExhausted and "larger than max" in detail:
                kind = MessageTooLarge
            raise self._failed(kind, f"{code}: {detail}") from None


def connect(url: str, model: str, **settings) -> Transport:
    """The transport that a URL names.

    Args:
      url: `http://host:port`, `https://host:port` or `grpc://host:port`.
      model: the name under which the server has it.
      **settings: of `Transport`.

    Raises:
      UserError: it names none.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # of a port that is no number
        host = None
    if host and parts.scheme in ("http", "https"):
        return Rest(url, model, **settings)
    if host and port and parts.scheme == "grpc":
        return Grpc(parts.netloc, model, **settings)
    raise UserError(
        "--url: expected http://host:port, https://host:port or "
        f"grpc://host:port, received {url!r}."
    )


def _left(deadline: float) -> float:
    """Seconds until then; raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _unpacked(value: dict) -> Any:
    """Binary strings out of JSON."""
    return base64.b64decode(value["b64"]) if set(value) == {"b64"} else value


def _json_of(message) -> dict:
    """As TensorFlow Serving writes a message over REST, but for zeros, which
    are left out.
    """
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _read(expected: str, parse: Callable[[Any], Any], reply: Any) -> Any:
    try:
        return parse(reply)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadReply(
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


def _outputs(reply: Any, specs: Specs, rows: int) -> dict[str, np.ndarray]:
    """The arrays of a reply that is what `specs` say."""
    if len(specs) == 1 and not isinstance(reply, dict):
        reply = dict.fromkeys(specs, reply)  # REST leaves out a single name.
    if not isinstance(reply, dict) or set(reply) != set(specs):
        raise BadReply(
            f"reply: expected outputs {sorted(specs)}, received "
            f"{str(reply)[:200]!r}."
        )
    arrays = {}
    for key, (dtype, shape) in specs.items():
        value = _read(
            f"{key} as {dtype}",
            lambda given, dtype=dtype: np.array(
                given, object if dtype == "string" else dtype
            ),
            reply[key],
        )
        expected = (rows, *shape[1:])
        if value.shape != expected or (
            dtype == "string" and {type(one) for one in value.flat} != {bytes}
        ):
            raise BadReply(
                f"reply: expected {key} as {dtype} {list(expected)}, received "
                f"{value.dtype} {list(value.shape)}."
            )
        arrays[key] = value
    return arrays
