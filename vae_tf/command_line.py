"""Command lines: a dataclass of settings -> absl flags -> an action, and a
user's mistake -> one line.
"""

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from absl import flags

from vae_tf.settings import Settings, UserError, kind, parsed


class _FieldParser(flags.ArgumentParser):
    """Parses a flag by the declaration of its field, so that flags and Python
    share one set of rules.
    """

    def __init__(self, field: dataclasses.Field):
        super().__init__()
        self.field = field

    def parse(self, argument):
        return (
            parsed(self.field, argument)
            if isinstance(argument, str)
            else argument
        )


class _FieldSerializer(flags.ArgumentSerializer):
    """Writes a default as it would be typed."""

    def serialize(self, value):
        return (
            ",".join(map(str, value))
            if isinstance(value, tuple)
            else str(value)
        )


def _flags(settings: type[Settings], script: str) -> flags.FlagValues:
    values = flags.FlagValues()
    for field in dataclasses.fields(settings):
        choices = field.metadata.get("choices")
        text = field.metadata["help"] + (
            f": {', '.join(choices)}" if choices else ""
        )
        default: Any = field.default
        if kind(field)[0] is bool:
            flags.DEFINE_boolean(field.name, default, text, values, script)
        else:
            parser, serializer = _FieldParser(field), _FieldSerializer()
            flags.DEFINE(
                parser,
                field.name,
                default,
                text,
                values,
                serializer,
                script,
            )
    flags.DEFINE_boolean("help", False, "show this help", values, script)
    return values


def _gathered(settings: type[Settings], argv: list[str]) -> list[str]:
    """`--name a b` as `--name a,b`, where a setting takes several values."""
    several = {
        f"--{field.name}"
        for field in dataclasses.fields(settings)
        if kind(field)[0] is tuple
    }
    gathered: list[str] = []
    for argument in argv:
        flag = gathered[-2] if len(gathered) > 1 else ""
        if flag in several and not argument.startswith("-"):
            gathered[-1] += f",{argument}"
        else:
            gathered.append(argument)
    return gathered


def _given(
    settings: type[Settings], argv: list[str], about: str
) -> dict[str, Any] | None:
    """The settings named in `argv`; None if help was asked for."""
    values = _flags(settings, os.path.basename(argv[0]))
    try:
        stray = values(_gathered(settings, argv))[1:]
    except flags.Error as error:
        # A field's own message is whole; absl's prefix ("flag --x=y: ") would
        # say it twice.
        cause = error.__context__
        raise UserError(
            str(cause if isinstance(cause, UserError) else error)
        ) from None
    if values["help"].value:
        print(about)
        print(values.get_help().strip())
        return None
    if stray:
        raise UserError(
            f"expected flags only (--name=value), received {stray[0]!r}."
        )
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: values[name].value for name in names if values[name].present}


def run(
    settings: type[Settings],
    action: Callable[[dict[str, Any]], None],
    about: str | None,
) -> None:
    """Calls `action` with the settings named on the command line; `--help`
    says what they are, after `about`.

    Exits with 0 on success and after `--help`; with 2 and one line `ERROR: ...`
    on a `UserError`; with 130 and one line after Ctrl-C, as a shell does, or
    the code of what was interrupted. Any other exception is our bug, and keeps
    its traceback.
    """
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "2"
    )  # TensorFlow's start-up chatter.
    warnings.showwarning = lambda message, *_, **__: print(
        f"WARNING: {one_line(str(message))}", file=sys.stderr
    )
    try:
        given = _given(settings, sys.argv, about or "")
        if given is not None:
            action(given)
    except UserError as error:
        print("ERROR:", one_line(str(error)), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(one_line(str(error)) or "Interrupted.", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 130))


# What Keras imports for its wrappers and galleries, and can do without.
FOR_KERAS = ("sklearn", "matplotlib")


@contextlib.contextmanager
def without_wrappers():
    """While a command imports Keras, without what Keras would import for what
    no command uses: a second and a half. Whoever imports it afterwards gets it.
    """
    hidden = [name for name in FOR_KERAS if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def one_line(text: str) -> str:
    """A message without what would break a line, or command a terminal."""
    return " ".join(
        "".join(c if c.isprintable() else ascii(c)[1:-1] for c in word)
        for word in text.split()
    )
