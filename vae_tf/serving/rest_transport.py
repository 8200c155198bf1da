"""A served model over REST, JSON over HTTP, with the standard library and NumPy
only.
"""

import base64
import contextlib
import http.client
import json
import re
import ssl
import urllib.parse
from typing import Any

from vae_tf.serving import errors
from vae_tf.serving.endpoints import Endpoint, public
from vae_tf.serving.replies import NotFinite, read
from vae_tf.serving.transports import Transport, seconds_left

PIECE = 1 << 16  # bytes read of a reply before the clock is looked at
VALUE_BYTES = 32  # of the longest number in JSON, with brackets and a comma
REDIRECTIONS = (301, 302, 303, 307, 308)


class Rest(Transport):
    """See `Transport`. Proxies of the environment are not used."""

    STATUSES = {
        400: errors.InvalidRequest,
        401: errors.PermissionDenied,
        403: errors.PermissionDenied,
        404: errors.NotFound,
        413: errors.MessageTooLarge,
        429: errors.ResourceExhausted,
        502: errors.Unavailable,
        503: errors.Unavailable,
        504: errors.DeadlineExceeded,
    }

    def __init__(self, endpoint: Endpoint, *arguments, **settings):
        super().__init__(endpoint.url, *arguments, **settings)
        self._endpoint = endpoint
        self._tls = (
            ssl.create_default_context(cadata=endpoint.certificates)
            if endpoint.scheme == "https"
            else None
        )

    def _hide(self, text):
        return self._endpoint.hide(text)

    def _bytes_of(self, dtype):
        return VALUE_BYTES

    def _ask_status(self, deadline, version):
        place = "" if version is None else f"/versions/{version}"
        return self._exchange(deadline, "GET", place)

    def _ask_metadata(self, deadline):
        reply = self._exchange(deadline, "GET", f"{self._place(None)}/metadata")
        return read(
            "metadata",
            lambda given: {
                **given["metadata"]["signature_def"],
                "version": given.get("model_spec", {}).get("version"),
            },
            reply,
        )

    def _ask_predict(self, deadline, signature, inputs, version):
        lists = {key: value.tolist() for key, value in inputs.items()}
        request = {"signature_name": signature, "inputs": lists}
        body = json.dumps(request, default=_packed)
        place = self._place(version)
        reply = self._exchange(
            deadline, "POST", f"{place}:predict", body.encode()
        )
        return read("outputs", lambda given: given["outputs"], reply)

    def _place(self, version: int | None) -> str:
        """Of a version, or else of what this transport asks, in a URL."""
        if version is None:
            version = self.version
        if version is not None:
            return f"/versions/{version}"
        if self.label is not None:
            return f"/labels/{urllib.parse.quote(self.label, safe='')}"
        return ""

    def _exchange(self, deadline, method, path, body=None):
        self._require_fits("request", len(body or ""))
        try:
            code, content, target = self._transfer(deadline, method, path, body)
        except TimeoutError:
            raise
        except (OSError, http.client.IncompleteRead) as error:
            raise self._failed(errors.Unavailable, repr(error)) from None
        except http.client.HTTPException as error:
            raise self._failed(errors.BadReply, f"no HTTP: {error!r}") from None
        if code in REDIRECTIONS and target:
            raise self._failed(
                errors.BadReply,
                f"HTTP {code}, a redirection: give this client the URL "
                f"{self._base(target)!r}",
            )
        if code != 200:
            # As text: the server escapes quotes in a way that JSON does not.
            text = content.decode(errors="replace").strip()[:500]
            raise self._failed(
                self.STATUSES.get(code, errors.ServerError),
                f"HTTP {code}: {text}",
            )
        try:
            return json.loads(
                content, object_hook=_unpacked, parse_constant=NotFinite
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise self._failed(
                errors.BadReply, f"{content[:200]!r} ({error})"
            ) from None

    def _transfer(
        self, deadline, method, path, body
    ) -> tuple[int, bytes, str | None]:
        """A status, a content and the header Location."""
        # A connection of its own for each request: threads share none, and
        # none goes stale.
        host, port = self._endpoint.host, self._endpoint.port
        left = seconds_left(deadline)
        connection = (
            http.client.HTTPSConnection(
                host, port, timeout=left, context=self._tls
            )
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=left)
        )
        model = urllib.parse.quote(self.model, safe="")
        sent = self._endpoint.headers
        try:
            # A server that refuses a large body may answer before its end.
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method,
                    f"{self._endpoint.path}/v1/models/{model}{path}",
                    body,
                    {"Content-Type": "application/json", **sent},
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
            target = response.getheader("Location")
            return response.status, bytes(content), target
        finally:
            connection.close()

    def _base(self, target: str) -> str:
        """The URL of a server that is the target of a redirection."""
        with contextlib.suppress(ValueError):  # of what is no URL
            target = urllib.parse.urljoin(f"{self.address}/", target)
        return public(re.sub(r"(?is)/v1/models.*", "", target))


def _packed(value: bytes) -> dict[str, str]:
    """Binary strings into JSON."""
    return {"b64": base64.b64encode(value).decode()}


def _unpacked(value: dict) -> Any:
    """Binary strings out of JSON."""
    if set(value) != {"b64"}:
        return value
    return base64.b64decode(value["b64"], validate=True)
