"""Arguments of any length, as requests that a server takes."""

import numpy as np

from vae_tf.serving.arguments import written
from vae_tf.serving.errors import InvalidRequest, MessageTooLarge, NotFound
from vae_tf.serving.transports import Transport

Arrays = dict[str, np.ndarray]


def ask(
    transport: Transport, signature: str, inputs: Arrays, rows_per_request: int
) -> Arrays:
    """The outputs of a signature, [N, ...] each.

    Args:
      transport: who is asked.
      signature: its name.
      inputs: [N, ...] each.
      rows_per_request: more are sent in several requests, as are rows that are
        too large together.

    Raises:
      InvalidRequest: the model has no such signature of such inputs.
      ServingError: no answer; MessageTooLarge names the row.
    """
    lengths = [len(value) for value in inputs.values()]
    if len(set(lengths)) > 1:
        raise InvalidRequest(
            f"{', '.join(inputs)}: expected as many rows of each, received "
            f"{', '.join(map(str, lengths))}."
        )
    _require_fitting(transport, signature, inputs)
    rows = lengths[0]
    step = min(rows_per_request, transport.rows_that_fit(signature, inputs))
    if rows <= step:
        try:
            return transport.predict(signature, inputs)
        except MessageTooLarge as error:
            step = _smaller(rows, 0, error)
    try:
        answers = _ask_one_version(transport, signature, inputs, step)
    except NotFound:
        # The version went while it was asked: another has taken its place.
        answers = _ask_one_version(transport, signature, inputs, step)
    return {
        key: np.concatenate([answer[key] for answer in answers])
        for key in answers[0]
    }


def _ask_one_version(
    transport: Transport, signature: str, inputs: Arrays, step: int
) -> list[Arrays]:
    """Answers of one version, or they would be of two models."""
    version = transport.answering()
    rows = len(next(iter(inputs.values())))
    answers, start = [], 0
    while start < rows:
        stop = min(rows, start + step)
        part = {key: value[start:stop] for key, value in inputs.items()}
        try:
            answers.append(transport.predict(signature, part, version))
            start = stop
        except MessageTooLarge as error:
            step = _smaller(stop - start, start, error)
    return answers


def _smaller(rows: int, start: int, error: MessageTooLarge) -> int:
    """A number of rows that may fit where `rows` from `start` on did not: the
    server's limit is known to nobody, nor is the length of a reply.
    """
    if rows == 1:
        raise MessageTooLarge(f"row {start}: {error}") from None
    return (rows + 1) // 2


def _require_fitting(
    transport: Transport, signature: str, inputs: Arrays
) -> None:
    """Raises InvalidRequest unless the model has such inputs."""
    try:
        _compare(transport, signature, inputs, refresh=False)
    except InvalidRequest:
        # The server may have loaded a version with other shapes.
        _compare(transport, signature, inputs, refresh=True)


def _compare(
    transport: Transport, signature: str, inputs: Arrays, refresh: bool
) -> None:
    known = transport.signatures(refresh)
    expected = known.get(signature, {"inputs": {}})["inputs"]
    if set(expected) != set(inputs):
        raise InvalidRequest(
            f"{signature}: expected a model with this signature of "
            f"{', '.join(inputs)}, received one with "
            f"{', '.join(sorted(known))}."
        )
    for key, value in inputs.items():
        dtype, shape = expected[key]
        wanted = np.dtype(object if dtype == "string" else dtype)
        received = (-1, *value.shape[1:])
        if value.dtype != wanted or received != shape:
            raise InvalidRequest(
                f"{key}: expected {written('N', *shape[1:])} of {dtype}, "
                f"received {written(*value.shape)} of {value.dtype}."
            )
