"""Where a server is, and who asks: what a URL, a token and headers say, checked
before anything is sent. What is secret in them stays out of every message.
"""

import base64
import dataclasses
import ipaddress
import os
import pathlib
import re
import ssl
import urllib.parse
import warnings
from collections.abc import Mapping

from vae_tf.settings import UserError

URL = "http://127.0.0.1:8501"  # of the server that `make serve` starts
MODEL = "vae"  # and of its model
SECURE = ("https", "grpcs")
SCHEMES = ("http", "https", "grpc", "grpcs")
# Those that both transports can send, and need not send themselves.
NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
OWN = {
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "te",
    "transfer-encoding",
}
VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
TOKEN = re.compile(r"[!-~]+")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, and what is sent to it with each request."""

    scheme: str
    host: str  # in ASCII, an IPv6 address without brackets
    port: int | None
    path: str  # in front of /v1, quoted, without a slash at its end
    headers: Mapping[str, str] = dataclasses.field(repr=False)  # in lower case
    certificates: str | None = dataclasses.field(repr=False)  # PEM; None: any
    secrets: tuple[str, ...] = dataclasses.field(repr=False)

    @property
    def netloc(self) -> str:
        """`host:port`, or `host` where the URL names no port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without its user."""
        return f"{self.scheme}://{self.netloc}{self.path}"

    def hide(self, text: str) -> str:
        """`text` without secrets, which a server may send back."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def endpoint(
    url: str,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    ca_file: str | os.PathLike | None = None,
) -> Endpoint:
    """What `Client` was given, checked.

    Raises:
      UserError: one of them is not what `Client` takes.
    """
    parts, host = _parts(url)
    sent = _sent(headers)
    secrets = _add_credentials(sent, token, parts)
    if "authorization" in sent and parts.scheme not in SECURE:
        _warn_unless_local(parts.scheme, host)
    return Endpoint(
        parts.scheme,
        host,
        parts.port,
        urllib.parse.quote(parts.path.rstrip("/"), "/%:@!$&'()*+,;=~"),
        sent,
        _certificates(ca_file, parts.scheme),
        secrets,
    )


def _parts(url: str) -> tuple[urllib.parse.SplitResult, str]:
    """A URL taken apart, and its host in ASCII."""
    try:
        if re.search(r"[\s\x00-\x1f\x7f?#]", url):
            raise ValueError
        url.encode()  # not of half a character
        parts = urllib.parse.urlsplit(url)
        # A port that is no number is a ValueError; a host that cannot be is
        # a UnicodeError, which is one.
        host, port = _ascii(parts.hostname or ""), parts.port
        is_grpc = parts.scheme.startswith("grpc")
        if (
            parts.scheme not in SCHEMES
            or port == 0
            or (is_grpc and (port is None or parts.path.strip("/")))
        ):
            raise ValueError
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            "--url: expected http://host:port, https://host:port, "
            "grpc://host:port, grpcs://host:port or bundle:path, received "
            f"{public(url)!r}."
        ) from None
    return parts, host


def public(url):
    """A URL, right or wrong, without its user, and without what follows a
    question mark.
    """
    if not isinstance(url, str):
        return url
    url = re.sub(r"(?s)[?#].*", "?...", url)
    return re.sub(r"(?s)^([A-Za-z][\w+.-]*://)?.*@", r"\1***@", url)


def _ascii(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        name = host.encode("idna").decode()
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ValueError(host)
    return name


def _sent(headers: Mapping[str, str] | None) -> dict[str, str]:
    expected = (
        "headers: expected names and values in ASCII, each name once and none "
        "that the client sends itself, received "
    )
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise UserError(f"{expected}{type(headers).__name__}.")
    sent: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower() if isinstance(name, str) else ""
        if not NAME.fullmatch(lower) or lower in OWN or lower in sent:
            raise UserError(f"{expected}the name {name!r}.")
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            raise UserError(f"{expected}another value of {name!r}.")
        sent[lower] = value
    return sent


def _add_credentials(
    sent: dict[str, str],
    token: str | None,
    parts: urllib.parse.SplitResult,
) -> tuple[str, ...]:
    """Writes a token, or the user of a URL, into the headers; returns what is
    secret in them.
    """
    given, secrets = [], []
    if "authorization" in sent:
        given.append(sent["authorization"])
        secrets += [given[0], *given[0].split()[1:]]
    if token is not None:
        given.append(f"Bearer {_token(token)}")
        secrets.append(token)
    if parts.username is not None or parts.password is not None:
        quoted = parts.password or ""
        user, password = map(
            urllib.parse.unquote, (parts.username or "", quoted)
        )
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        given.append(f"Basic {basic}")
        secrets += [basic, password, quoted]
    if len(given) > 1:
        raise UserError(
            "token: expected one of a token, a user in the URL and a header "
            "Authorization, received several."
        )
    if given:
        sent["authorization"] = given[0]
    return tuple(filter(None, secrets))


def _token(token: str) -> str:
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise UserError(
            "token: expected visible characters of ASCII, received others (a "
            "line's end, for example)."
        )
    return token


def _warn_unless_local(scheme: str, host: str) -> None:
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    if not is_local:
        warnings.warn(
            f"token: expected https:// or grpcs://, received {scheme}://{host}:"
            " who is on the way there can read it.",
            stacklevel=5,  # of who makes the client
        )


def _certificates(ca_file: str | os.PathLike | None, scheme: str) -> str | None:
    if ca_file is None:
        return None
    if scheme not in SECURE:
        raise UserError(
            "ca_file: expected one with https:// or grpcs:// only, received "
            f"{str(ca_file)!r} with {scheme}://."
        )
    try:
        text = pathlib.Path(ca_file).read_text("ascii")
        if not text:  # which would be read as none
            raise ValueError("it is empty")
        ssl.create_default_context(cadata=text)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            "ca_file: expected a file of certificates (PEM), received "
            f"{str(ca_file)!r} ({error})."
        ) from None
    return text
