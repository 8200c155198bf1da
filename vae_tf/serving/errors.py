"""Requests without an answer, and why."""

from vae_tf.settings import UserError


class ServingError(Exception):
    """A request without an answer."""


class InvalidRequest(ServingError, UserError):
    """A request that the model cannot answer, seen by the client or by the
    server.
    """


class NotFound(ServingError):
    """The server knows no such model, version or signature."""


class PermissionDenied(ServingError):
    """The server does not answer this client: its token is missing, wrong or
    not enough.
    """


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
