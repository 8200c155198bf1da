"""A served model over REST, JSON over HTTP, with the standard library and NumPy
only.
"""

import base64
import http.client
import json
import urllib.parse
from typing import Any, cast

from vae_tf.serving import errors
from vae_tf.serving.transports import Transport, read, seconds_left

PIECE = 1 << 16  # bytes read of a reply before the clock is looked at


class Rest(Transport):
    """`address` is the server's URL; see `Transport`."""

    STATUSES = {
        400: errors.InvalidRequest,
        404: errors.NotFound,
        413: errors.MessageTooLarge,
        429: errors.ResourceExhausted,
        502: errors.Unavailable,
        503: errors.Unavailable,
        504: errors.DeadlineExceeded,
    }

    def _ask_status(self, deadline):
        return self._exchange(deadline, "GET", "")

    def _ask_metadata(self, deadline):
        reply = self._exchange(deadline, "GET", "/metadata")
        return read(
            "metadata", lambda given: given["metadata"]["signature_def"], reply
        )

    def _ask_predict(self, deadline, signature, inputs, version):
        lists = {key: value.tolist() for key, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": lists})
        place = "" if version is None else f"/versions/{version}"
        reply = self._exchange(
            deadline, "POST", f"{place}:predict", body.encode()
        )
        return read("outputs", lambda given: given["outputs"], reply)

    def _exchange(self, deadline, method, path, body=None):
        self._require_fits("request", len(body or ""))
        try:
            code, content = self._transfer(deadline, method, path, body)
        except TimeoutError:
            raise
        except (OSError, http.client.IncompleteRead) as error:
            raise self._failed(errors.Unavailable, repr(error)) from None
        except http.client.HTTPException as error:
            raise self._failed(errors.BadReply, f"no HTTP: {error!r}") from None
        if code != 200:
            # As text: the server escapes quotes in a way that JSON does not.
            text = content.decode(errors="replace").strip()[:500]
            raise self._failed(
                self.STATUSES.get(code, errors.ServerError),
                f"HTTP {code}: {text}",
            )
        try:
            return json.loads(content, object_hook=_unpacked)
        except (ValueError, TypeError) as error:
            raise self._failed(
                errors.BadReply, f"{content[:200]!r} ({error})"
            ) from None

    def _transfer(self, deadline, method, path, body) -> tuple[int, bytes]:
        # A connection of its own for each request: threads share none, and
        # none goes stale.
        url = urllib.parse.urlsplit(self.address)
        host = cast(str, url.hostname)  # `client.connect` has seen one.
        connection = (
            http.client.HTTPSConnection
            if url.scheme == "https"
            else http.client.HTTPConnection
        )(host, url.port, timeout=seconds_left(deadline))
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
            socket.settimeout(seconds_left(deadline))
            response = connection.getresponse()
            length, content = response.length, bytearray()
            self._require_fits("reply", length or 0)
            while length is None or len(content) < length:
                # A timeout of a socket is that of one piece.
                socket.settimeout(seconds_left(deadline))
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


def _unpacked(value: dict) -> Any:
    """Binary strings out of JSON."""
    return base64.b64decode(value["b64"]) if set(value) == {"b64"} else value
