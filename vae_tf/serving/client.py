"""A client of a served model, and pictures of it:

python -m vae_tf.serving.client sample --n 16 --out samples.png
python -m vae_tf.serving.client status

Over REST it needs NumPy and the standard library, over gRPC TensorFlow, too."""

import dataclasses
import io
import math
import pathlib
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vae_tf import command_line
from vae_tf.data.files import written_atomically
from vae_tf.serving.arguments import (
    ARGUMENTS,
    SEEDS,
    latents,
    pixels,
    seeds,
    written,
)
from vae_tf.serving.errors import InvalidRequest, NotFound, ServingError
from vae_tf.serving.rest_transport import Rest
from vae_tf.serving.transports import Transport
from vae_tf.settings import Settings, UserError, setting

URL = "http://127.0.0.1:8501"
MODEL = "vae"


class Posterior(NamedTuple):
    """Of q(z|x), [N, D] each."""

    mean: np.ndarray
    stddev: np.ndarray


class Sample(NamedTuple):
    """z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N, H, W, C] each."""

    z: np.ndarray
    mean: np.ndarray
    image: np.ndarray


class Score(NamedTuple):
    """The ELBO = reconstruction - KL and an estimate of log p(x), in nats, [N]
    each.
    """

    elbo: np.ndarray
    kl: np.ndarray
    reconstruction: np.ndarray
    log_marginal_likelihood: np.ndarray


class Client:
    """A served model. Several threads may share it.

    Its methods take and return NumPy arrays with a leading axis N of any
    length >= 1, and row i of an answer depends on row i of the arguments
    alone. All of them raise:

      InvalidRequest (a ValueError): an argument that the model cannot answer;
        as a rule seen before anything is sent.
      ServingError: no answer; see its subclasses in `errors`.

    Args:
      url: `http://host:port`, `https://host:port` or `grpc://host:port`, or
        `bundle:path` of an export on this machine, which then runs in this
        process.
      model: the name under which the server has it.
      timeout: seconds of a request in all, its repetitions included.
      retries: how often a request is asked again of a server that is
        unavailable.
      rows_per_request: longer arguments are sent in several requests, to
        one version of the model. At most the server's `max_batch_size`.
      max_message_bytes: largest request and reply.

    Raises:
      UserError: an argument is none of these.
    """

    def __init__(
        self,
        url: str = URL,
        model: str = MODEL,
        timeout: float = 30.0,
        retries: int = 3,
        rows_per_request: int = 256,
        max_message_bytes: int = 2**28,
    ):
        for name, value, least in (
            ("retries", retries, 0),
            ("rows_per_request", rows_per_request, 1),
            ("max_message_bytes", max_message_bytes, 1),
        ):
            # gRPC holds sizes in an int32.
            if type(value) is not int or not least <= value < 2**31:
                raise UserError(
                    f"{name}: expected an integer >= {least} and < 2^31, "
                    f"received {value!r}."
                )
        if not 0 < timeout < math.inf:
            raise UserError(
                f"timeout: expected seconds > 0, received {timeout!r}."
            )
        self.rows_per_request = rows_per_request
        self._transport = connect(
            url,
            model,
            timeout=timeout,
            retries=retries,
            max_message_bytes=max_message_bytes,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def decode(self, z: ArrayLike) -> np.ndarray:
        """z [N, D], finite -> the mean of p(x|z) [N, H, W, C]."""
        return self._ask("decode", z=latents(z))["image"]

    def encode(self, image: ArrayLike) -> Posterior:
        """x [N, H, W, C] in [0, 1] -> mean and standard deviation of q(z|x)."""
        return Posterior(**self._ask("encode", image=pixels(image)))

    def sample(self, seed: ArrayLike) -> Sample:
        """Integers [N], one per image -> draws of the model, the same for the
        same seed.
        """
        return Sample(**self._ask("sample", seed=seeds(seed)))

    def sample_png(self, seed: ArrayLike) -> list[bytes]:
        """Integers [N] -> the means that `sample` gives, as N PNG files."""
        return list(self._ask("sample_png", seed=seeds(seed))["image_bytes"])

    def reconstruct(self, image: ArrayLike) -> np.ndarray:
        """x [N, H, W, C] in [0, 1] -> the mean of p(x|z) at the mean of q(z|x),
        [N, H, W, C].
        """
        return self._ask("reconstruct", image=pixels(image))["image"]

    def score(self, image: ArrayLike, seed: ArrayLike) -> Score:
        """x [N, H, W, C] in [0, 1], and integers [N] for the draws of z -> the
        ELBO, its terms and log p(x); NaN for an image that p(x|z) gives no
        probability, such as a grey one where it is a Bernoulli's.
        """
        inputs = {
            "image": pixels(image),
            "seed": seeds(seed),
        }
        return Score(**self._ask("score", **inputs))

    def predict(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        """What any signature answers: output name -> [N, ...]. `z`, `image` and
        `seed` are as those of the methods above.
        """
        return self._ask(
            signature,
            **{
                name: ARGUMENTS.get(name, np.asarray)(value)
                for name, value in inputs.items()
            },
        )

    def signatures(self) -> list[str]:
        """Their names."""
        return sorted(self._transport.signatures())

    def status(self) -> dict[int, str]:
        """Version -> state, which is AVAILABLE for one that answers."""
        return self._transport.status()

    def _ask(self, signature: str, **inputs) -> dict[str, np.ndarray]:
        lengths = [len(value) for value in inputs.values()]
        if len(set(lengths)) > 1:
            raise InvalidRequest(
                f"{', '.join(inputs)}: expected as many rows of each, received "
                f"{', '.join(map(str, lengths))}."
            )
        self._require_fitting(signature, inputs)
        rows, step = lengths[0], self.rows_per_request
        if rows <= step:
            return self._transport.predict(signature, inputs)
        parts = [
            {key: value[start : start + step] for key, value in inputs.items()}
            for start in range(0, rows, step)
        ]
        try:
            answers = self._ask_latest(signature, parts)
        except NotFound:
            # The version went while it was asked: another has taken its place.
            answers = self._ask_latest(signature, parts)
        return {
            key: np.concatenate([answer[key] for answer in answers])
            for key in answers[0]
        }

    def _ask_latest(self, signature, parts) -> list[dict[str, np.ndarray]]:
        """Answers of one version, or they would be of two models."""
        states = self.status()
        latest = max(
            (v for v, state in states.items() if state == "AVAILABLE"),
            default=None,
        )
        return [
            self._transport.predict(signature, part, latest) for part in parts
        ]

    def _require_fitting(self, signature, inputs) -> None:
        """Raises InvalidRequest unless the model has such inputs."""
        try:
            self._compare(signature, inputs, refresh=False)
        except InvalidRequest:
            # The server may have loaded a version with other shapes.
            self._compare(signature, inputs, refresh=True)

    def _compare(self, signature, inputs, refresh: bool) -> None:
        known = self._transport.signatures(refresh)
        expected = known.get(signature, {"inputs": {}})["inputs"]
        if set(expected) != set(inputs):
            raise InvalidRequest(
                f"{signature}: expected a model with this signature of "
                f"{', '.join(inputs)}, received one with "
                f"{', '.join(sorted(known))}."
            )
        for key, value in inputs.items():
            dtype, shape = expected[key]
            received = (-1, *value.shape[1:])
            if value.dtype != dtype or received != shape:
                raise InvalidRequest(
                    f"{key}: expected {written('N', *shape[1:])} of {dtype}, "
                    f"received {written(*value.shape)} of {value.dtype}."
                )


def connect(url: str, model: str, **settings) -> Transport:
    """The transport that a URL names.

    Args:
      url: `http://host:port`, `https://host:port`, `grpc://host:port` or
        `bundle:path`.
      model: the name under which the server has it.
      **settings: of `Transport`.

    Raises:
      UserError: it names none.
    """
    if url.startswith("bundle:"):
        # Here, because it loads TensorFlow's C library.
        from vae_tf.serving.bundle_transport import Bundle

        return Bundle(url, model, **settings)
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # of a port that is no number
        host = None
    if host and parts.scheme in ("http", "https"):
        return Rest(url, model, **settings)
    if host and port and parts.scheme == "grpc":
        # Here, because it imports TensorFlow, which REST does without.
        from vae_tf.serving.grpc_transport import Grpc

        return Grpc(parts.netloc, model, **settings)
    raise UserError(
        "--url: expected http://host:port, https://host:port, "
        f"grpc://host:port or bundle:path, received {url!r}."
    )


@dataclasses.dataclass(frozen=True)
class Status(Settings):
    url: str = setting(
        URL, "the server: http://host:port, https://host:port, grpc://host:port"
    )
    model: str = setting(MODEL, "the name under which it has the model")


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


def draw(settings: Sheet) -> None:
    """Writes the means of samples as one picture, in rows of about as many as
    there are rows.

    Raises:
      ServingError: no answer.
      UserError: the file cannot be written.
    """
    from PIL import Image

    with Client(settings.url, settings.model) as client:
        seeds = range(settings.seed, settings.seed + settings.n)
        images = [
            Image.open(io.BytesIO(png)) for png in client.sample_png(seeds)
        ]
    columns = math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    sheet = Image.new(
        images[0].mode,
        (columns * width, math.ceil(len(images) / columns) * height),
    )
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet.paste(image, (column * width, row * height))
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


def show_status(settings: Status) -> None:
    """Prints a line per version; raises ServingError."""
    with Client(settings.url, settings.model) as client:
        for version, state in sorted(client.status().items()):
            print(f"version {version}: {state}")


COMMANDS: dict[str, tuple[type[Settings], Callable[[Any], None]]] = {
    "sample": (Sheet, draw),
    "status": (Status, show_status),
}


def main() -> None:
    """Runs the command that the first word of the command line names."""
    word = "".join(sys.argv[1:2])
    settings, command = COMMANDS.get(word, (Settings, None))

    def action(given):
        if command is None:
            raise UserError(
                f"command: expected one of {', '.join(COMMANDS)}, received "
                f"{word!r}."
            )
        try:
            command(settings(**given))
        except ServingError as error:
            raise UserError(str(error)) from error

    # The flags of no command are none but --help.
    flags = sys.argv[2:] if command else {"--help"} & set(sys.argv)
    sys.argv = [*sys.argv[:1], *flags]
    command_line.run(settings, action, __doc__)


if __name__ == "__main__":
    main()
