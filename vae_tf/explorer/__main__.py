"""Opens a page on which you walk through the latent space of a model.

python -m vae_tf.explorer, or vae-explorer where the package is installed
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import tempfile
import threading
import warnings
import webbrowser
from collections.abc import Iterator
from typing import Any

from vae_tf import command_line
from vae_tf.serving import endpoints
from vae_tf.serving.bundle_transport import SCHEME, version_of
from vae_tf.serving.check import MANIFEST
from vae_tf.serving.client import Client
from vae_tf.serving.client_commands import Status, asking
from vae_tf.serving.endpoints import URL
from vae_tf.serving.errors import ServingError
from vae_tf.settings import UserError, setting

HOST = "127.0.0.1"
OF_A_SERVER = ("version", "label", "token_file", "ca_file")
FAMILIES = ("likelihood", "posterior", "prior", "num_importance_samples")


@dataclasses.dataclass(frozen=True)
class Explore(Status):
    run_dir: str | None = setting(
        None,
        "a run: its model, or beside --bundle and --url its held-out images "
        "alone (unset: runs/latest where neither is named)",
        path=True,
    )
    bundle: str | None = setting(
        None, "an exported version, or the directory of several", path=True
    )
    url: str | None = setting(  # type: ignore[assignment]  # unset: none
        None, "a server: http://host:port, https, grpc or grpcs"
    )
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
    if settings.url is not None:
        # Without user and password.
        url = endpoints.public(settings.url).replace("***@", "", 1)
        about |= {"url": url, "source": url}
        if url != settings.url:
            about["authorization"] = "basic"
        if settings.token_file:
            about["authorization"] = "bearer"
        if settings.run_dir:
            from vae_tf.runs.reading import config_of

            config = config_of(settings.run_dir)
            about |= {name: getattr(config, name) for name in FAMILIES[:3]}
        about |= {"version": settings.version, "label": settings.label}
        with asking(Client, settings) as client:
            yield client, about
        return
    with contextlib.ExitStack() as stack:
        if settings.bundle is not None:
            about["source"] = settings.bundle
            bundle = version_of(settings.bundle)
        else:
            run_dir = settings.run_dir or "runs/latest"
            about["source"] = run_dir
            if os.path.islink(run_dir):  # runs/latest
                about["source"] = os.path.join(
                    os.path.dirname(run_dir), os.readlink(run_dir)
                )
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


def _held_out(settings: Explore):
    """Images and classes of a run's validation split; nothing of no run, and of
    the run that is shown where its data is out of reach.
    """
    alone = settings.bundle is None and settings.url is None
    run_dir = settings.run_dir or ("runs/latest" if alone else None)
    if run_dir is None:
        return ()
    from vae_tf.pictures import snapshots
    from vae_tf.runs.directory import load_data_of_run

    try:
        return snapshots.held_out(load_data_of_run(run_dir, settings.data_dir))
    except UserError as error:
        if not alone:
            raise
        warnings.warn(
            f"{error} The page shows draws of the model instead.", stacklevel=2
        )
        return ()


def _listening(port: int) -> socket.socket:
    # Of this protocol by name, or asyncio leaves Nagle's algorithm on, which
    # holds up every other answer by 40 ms.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
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
    if settings.bundle is not None and settings.url is not None:
        raise UserError(
            "--url: expected one of --bundle and --url, received both."
        )
    for name in OF_A_SERVER:
        if settings.url is None and getattr(settings, name) is not None:
            raise UserError(
                f"--{name}: expected with --url alone, received without it."
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

    with contextlib.closing(_listening(settings.port)) as listener:
        with _endpoint(settings) as (client, about):
            try:
                seen = survey(client, *_held_out(settings))
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
