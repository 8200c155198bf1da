"""Opens a page on which you walk through the latent space of a model.

python -m vae_tf.explorer, or vae-explorer where the package is installed
"""

import contextlib
import dataclasses
import json
import pathlib
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from typing import Any

from vae_tf import command_line
from vae_tf.serving.bundle_transport import SCHEME, version_of
from vae_tf.serving.check import MANIFEST
from vae_tf.serving.client import MODEL, URL, Client
from vae_tf.serving.errors import ServingError
from vae_tf.settings import Settings, UserError, setting

HOST = "127.0.0.1"
FAMILIES = ("likelihood", "posterior", "prior", "num_importance_samples")


@dataclasses.dataclass(frozen=True)
class Explore(Settings):
    run_dir: str | None = setting(
        None,
        "a run: its model, or beside --bundle and --url its held-out images "
        "alone (unset: runs/latest where neither is named)",
        path=True,
    )
    bundle: str | None = setting(
        None, "an exported version, or the directory of several", path=True
    )
    url: str | None = setting(None, "a server that has the model")
    model: str = setting(MODEL, "the name under which it has it")
    data_dir: str | None = setting(
        None,
        "TFDS data directory, where it is not the run's",
        path=True,
        remote=True,
    )
    port: int = setting(
        8601, "of the page, on this machine alone", minimum=0, maximum=65535
    )
    browser: bool = setting(True, "open the page in a browser")


@contextlib.contextmanager
def _endpoint(settings: Explore) -> Iterator[tuple[Client, dict[str, Any]]]:
    """A client, and what the page says of its model."""
    about: dict[str, Any] = {"url": URL, "model": settings.model}
    if settings.url:
        about |= {"url": settings.url, "source": settings.url}
        with Client(settings.url, settings.model) as client:
            yield client, about
        return
    with contextlib.ExitStack() as stack:
        if settings.bundle:
            about["source"] = settings.bundle
            bundle = version_of(settings.bundle)
        else:
            run_dir = settings.run_dir or "runs/latest"
            about["source"] = run_dir
            place = stack.enter_context(tempfile.TemporaryDirectory())
            bundle = _exported(run_dir, place)
        # Of a SavedModel from elsewhere there is none.
        with contextlib.suppress(OSError, ValueError):
            manifest = json.loads((bundle / MANIFEST).read_bytes())
            about |= {name: manifest.get(name) for name in FAMILIES}
        client = stack.enter_context(Client(f"{SCHEME}{bundle}"))
        yield client, about


def _exported(run_dir: str, place: str) -> pathlib.Path:
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    print(f"Exporting {run_dir}, to run it as a server would ...", flush=True)
    return vae_tf.export_run(run_dir, place)


def _held_out(run_dir: str, data_dir: str | None):
    """Images and classes of a run's validation split."""
    from vae_tf.pictures import snapshots
    from vae_tf.runs.directory import load_data_of_run

    return snapshots.held_out(load_data_of_run(run_dir, data_dir))


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port: expected a free one, received {port} ({error.strerror})."
        ) from None
    listener.listen()  # Who comes before the server waits.
    return listener


def explore(given: dict[str, Any]) -> None:
    """Serves the page until Ctrl-C.

    Raises:
      UserError: there is no such run, bundle or server, or no free port.
    """
    settings = Explore(**given)
    if settings.bundle and settings.url:
        raise UserError(
            f"--url: expected one of --bundle and --url, received both "
            f"({settings.bundle!r}, {settings.url!r})."
        )
    try:
        import uvicorn

        from vae_tf.explorer.server import Explorer
    except ModuleNotFoundError as error:
        raise UserError(
            f"explorer: expected {error.name} to be installed, received none "
            "(pip install 'vae_tf[explorer]')."
        ) from None
    from vae_tf.explorer.survey import survey

    run_dir = settings.run_dir
    if not (settings.bundle or settings.url):
        run_dir = run_dir or "runs/latest"
    with contextlib.closing(_listening(settings.port)) as listener:
        with _endpoint(settings) as (client, about):
            try:
                held = (
                    _held_out(run_dir, settings.data_dir)
                    if run_dir
                    else (None, None)
                )
                seen = survey(client, *held)
            except ServingError as error:
                raise UserError(str(error)) from error
            application = Explorer(client, seen, about).application()
            address = f"http://{HOST}:{listener.getsockname()[1]}"
            print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
            server = uvicorn.Server(
                uvicorn.Config(application, log_level="warning")
            )
            if settings.browser:
                threading.Timer(0.5, webbrowser.open, (address,)).start()
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listener])


def main() -> None:
    command_line.run(Explore, explore, __doc__)


if __name__ == "__main__":
    main()
