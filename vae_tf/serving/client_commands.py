"""The command line of the client, which `client` runs."""

import dataclasses
import io
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from vae_tf import command_line
from vae_tf.data.files import written_atomically
from vae_tf.serving import replies
from vae_tf.serving.arguments import SEEDS
from vae_tf.serving.endpoints import MODEL, URL
from vae_tf.serving.errors import ServingError
from vae_tf.settings import Settings, UserError, setting

SIDE = 64  # pixels of a sample on a sheet, at least
GAP = 2  # pixels between two of them


@dataclasses.dataclass(frozen=True)
class Status(Settings):
    url: str = setting(
        URL,
        "the server: http://host:port, https://host:port, grpc://host:port, "
        "grpcs://host:port or bundle:path",
    )
    model: str = setting(MODEL, "the name under which it has the model")
    version: int | None = setting(
        None,
        "the version to ask (unset: the latest)",
        minimum=0,
        maximum=int(SEEDS.max),
    )
    label: str | None = setting(None, "the server's name for the version")
    token_file: str | None = setting(
        None, "a file that holds the token to send", path=True
    )
    ca_file: str | None = setting(
        None, "certificates (PEM) to trust over https and grpcs", path=True
    )


@dataclasses.dataclass(frozen=True)
class Sheet(Status):
    n: int = setting(16, "samples to draw", minimum=1)
    seed: int = setting(
        0,
        "seed of the first; those of the others follow it",
        minimum=int(SEEDS.min),
        maximum=int(SEEDS.max),
    )
    out: str = setting("samples.png", "the PNG file to write")


def draw(settings: Sheet, client: Any) -> None:
    """Writes the means of samples as one picture, in rows of about as many as
    there are rows.

    Raises:
      ServingError: no answer.
      UserError: the file cannot be written.
    """
    from PIL import Image

    seeds = range(settings.seed, settings.seed + settings.n)
    images = [Image.open(io.BytesIO(png)) for png in client.sample_png(seeds)]
    columns = math.ceil(math.sqrt(len(images)))
    larger = math.ceil(SIDE / min(*images[0].size, SIDE))
    width, height = (larger * side for side in images[0].size)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new(
        images[0].mode,
        (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP),
        "white",
    )
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet.paste(
            image.resize((width, height), Image.Resampling.NEAREST),
            (column * (width + GAP), row * (height + GAP)),
        )
    path = pathlib.Path(settings.out)
    try:
        with written_atomically(path) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise UserError(
            "--out: expected a file that can be written, received "
            f"{settings.out!r} ({error.strerror})."
        ) from None
    print(path)


def show_status(settings: Status, client: Any) -> None:
    """Prints a line per version; raises ServingError."""
    for line in replies.written(client.status()):
        print(command_line.one_line(line))


COMMANDS: dict[str, tuple[type[Status], Callable[[Any, Any], None]]] = {
    "sample": (Sheet, draw),
    "status": (Status, show_status),
}


def main(client: Callable[..., Any], about: str | None) -> None:
    """Runs the command that the first word of the command line names.

    Args:
      client: `Client`, which stands below this room.
      about: what `--help` says first.
    """
    word = "".join(sys.argv[1:2])
    settings, command = COMMANDS.get(word, (Settings, None))

    def action(given):
        if command is None:
            raise UserError(
                f"command: expected one of {', '.join(COMMANDS)}, received "
                f"{word!r}."
            )
        said: Any = settings(**given)
        try:
            with asking(client, said) as it:
                command(said, it)
        except ServingError as error:
            raise UserError(str(error)) from error

    # The flags of no command are none but --help.
    flags = sys.argv[2:] if command else {"--help"} & set(sys.argv)
    sys.argv = [*sys.argv[:1], *flags]
    command_line.run(settings, action, about)


def asking(client: Callable[..., Any], settings: Any) -> Any:
    """A client of the server that `settings`, a `Status`, name."""
    return client(
        settings.url,
        settings.model,
        version=settings.version,
        label=settings.label,
        token=_token(settings.token_file),
        ca_file=settings.ca_file,
    )


def _token(path: str | None) -> str | None:
    """What a file holds: a token on the command line is seen by all who list
    the processes.
    """
    if path is None:
        return None
    try:
        return pathlib.Path(path).read_text().strip()
    except (OSError, ValueError):
        raise UserError(
            f"--token_file: expected a file with a token, received {path!r}."
        ) from None
