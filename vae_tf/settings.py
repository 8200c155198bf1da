"""Settings: dataclasses whose fields say what they take, and the check of every
value against that. No TensorFlow here.
"""

import dataclasses
import inspect
import math
import os
import re
import types
import typing
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

MAX_INT = 2**31 - 1  # of a setting that names no maximum: TensorFlow's int32
# Of s3://bucket/x, which Python's functions take for directories of this
# machine, and pathlib writes s3:/bucket/x.
SCHEME = re.compile("([A-Za-z][A-Za-z0-9+.-]+):/")
COPIES = {  # what copies a directory to and from places of a scheme
    "s3": "aws s3 cp --recursive",
    "gs": "gcloud storage cp --recursive",
    "hdfs": "hdfs dfs -put and -get",
}


class UserError(ValueError):
    """A user's mistake. The message names the argument, what was expected and
    what was received.
    """


def choose(
    argument: str, value: Any, family: Mapping[str, Callable], **kwargs
) -> Any:
    """The member of `family` named `value`, made with `kwargs`; an instance is
    returned as it is. The member takes of `kwargs` those that its constructor
    names, and where one is None, its own default.

    Raises:
      UserError: `value` is a string that names no member of `family`, or the
        member refuses its arguments.
    """
    if not isinstance(value, str):
        return value
    if value not in family:
        raise UserError(
            f"{argument}: expected one of {', '.join(family)}, received "
            f"{value!r}."
        )
    member = family[value]
    # Of the constructor itself: a Keras layer that inherits its own shows
    # `(*args, **kwargs)` on Python 3.10 and 3.11.2.
    constructor: Callable = member
    if isinstance(member, type):
        constructor = member.__init__  # type: ignore[misc]  # of this class
    named = inspect.signature(constructor).parameters
    given = {
        name: argument
        for name, argument in kwargs.items()
        if name in named and argument is not None
    }
    try:
        return member(**given)
    except ValueError as error:
        raise UserError(str(error)) from None


def setting(default: Any, help: str, **limits) -> Any:
    """A dataclass field with its help and limits: `choices`, `minimum`,
    `maximum`, `above` and `below` (exclusive); `path` of one whose `~` is a
    home, which a shell leaves to us in --name=~/there, and that lies on this
    machine unless it may be `remote`.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every set of settings: checks each value against its declaration
    when it is made.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            # object.__setattr__ is how a frozen dataclass may normalise itself
            # (2 -> 2.0, list -> tuple).
            object.__setattr__(
                self, field.name, checked(field, getattr(self, field.name))
            )


def kind(field: dataclasses.Field) -> tuple[type[Any], bool]:
    """`(type, may be None)` of a field annotated `int`, `str | None`,
    `tuple[int, ...]` and the like.
    """
    type_, optional = _declared(field)
    return typing.get_origin(type_) or type_, optional


def _declared(field: dataclasses.Field) -> tuple[Any, bool]:
    """`(annotation less its None, may be None)`."""
    if isinstance(field.type, types.UnionType):
        return typing.get_args(field.type)[0], True
    return field.type, False


def _single(field: dataclasses.Field) -> type[Any]:
    """The type of a value, or of each of a tuple's."""
    type_, _ = _declared(field)
    return (typing.get_args(type_) or (type_,))[0]


def expected(field: dataclasses.Field) -> str:
    """What a value of `field` must be, in words."""
    if choices := field.metadata.get("choices"):
        return f"one of {', '.join(choices)}"
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a finite number",
        str: "a string",
        tuple[int, ...]: "integers separated by commas, each",
        tuple[str, ...]: "strings separated by commas",
    }[_declared(field)[0]]
    if "minimum" in field.metadata:
        words += f" >= {field.metadata['minimum']}"
    if "maximum" in field.metadata:
        words += f" and <= {field.metadata['maximum']}"
    if "above" in field.metadata:
        words += f" > {field.metadata['above']}"
    if "below" in field.metadata:
        words += f" and < {field.metadata['below']}"
    return words


def checked(field: dataclasses.Field, value: Any) -> Any:
    """`value` in the field's own type.

    Raises:
      UserError: it has another type, or lies outside the field's choices or
        limits.
    """
    type_, optional = kind(field)
    if value is None and optional:
        return None
    if type_ is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if type_ is tuple and isinstance(value, list):
        value = tuple(value)
    if "path" in field.metadata:
        value = _at_home(value)
    parts = value if type_ is tuple and isinstance(value, tuple) else (value,)
    if "path" in field.metadata and "remote" not in field.metadata:
        for part in parts:
            if isinstance(part, str):
                require_local(field.name, part)
        if value == "" and not optional:
            raise UserError(f"--{field.name}: expected a path, received ''.")
    single = _single(field)
    limits = field.metadata
    if _too_large(field, parts):
        raise UserError(
            f"--{field.name}: expected {expected(field)} and <= {MAX_INT}, "
            f"received {value!r}."
        )
    if (
        not isinstance(value, type_)
        or not parts
        or any(type(part) is not single for part in parts)
        or (single is float and not math.isfinite(value))
        or ("choices" in limits and value not in limits["choices"])
        or ("minimum" in limits and min(parts) < limits["minimum"])
        or ("maximum" in limits and max(parts) > limits["maximum"])
        or ("above" in limits and value <= limits["above"])
        or ("below" in limits and value >= limits["below"])
    ):
        raise UserError(
            f"--{field.name}: expected {expected(field)}, received {value!r}."
        )
    return value


def require_local(argument: str, path: str | os.PathLike) -> None:
    """Raises UserError where a path has a scheme, as `s3://bucket/x` has."""
    text = os.fspath(path)
    found = SCHEME.match(text)
    if not found:
        return
    scheme = found[1].lower()
    if scheme == "file":
        what = f"write {urllib.parse.urlsplit(text).path!r}"
    else:
        how = COPIES.get(scheme, "what its vendor has for that")
        what = (
            "to which nothing is written from here, and from which nothing is "
            f"read: copy the whole directory, with {how}"
        )
    raise UserError(
        f"--{argument}: expected a path on this machine, received {text!r} "
        f"({what})."
    )


def _too_large(field: dataclasses.Field, parts: tuple) -> bool:
    """Whether some are integers beyond what any setting is."""
    return (
        "maximum" not in field.metadata
        and any(type(part) is int and part > MAX_INT for part in parts)
        and _single(field) is int
    )


def _at_home(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_at_home, value))
    return os.path.expanduser(value) if isinstance(value, str) else value


def parsed(field: dataclasses.Field, text: str) -> Any:
    """`text`, as typed on a command line, in the field's type; raises UserError
    as `checked` does.
    """
    type_, _ = kind(field)
    try:
        if type_ is tuple:
            value = tuple(map(_single(field), text.split(",")))
        else:
            value = type_(text)
    except ValueError:
        raise UserError(
            f"--{field.name}: expected {expected(field)}, received {text!r}."
        ) from None
    return checked(field, value)
