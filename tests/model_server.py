"""Starts a model server for a test: the double, or TensorFlow Serving where
there is one.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

DOUBLE = "double"
REAL = "tensorflow_model_server"
SERVERS = (DOUBLE, REAL)
ROOT = pathlib.Path(__file__).parents[1]
TIMEOUT = 60  # seconds until a version is served, or the process ends

# Not through a proxy that the environment names.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclasses.dataclass
class Server:
    """One that runs: `rest` is a URL, `grpc` a host and port."""

    rest: str
    grpc: str
    process: subprocess.Popen

    def states(self) -> dict[int, str]:
        """The state of every version, `AVAILABLE` of those that are served."""
        try:
            with _open(f"{self.rest}/v1/models/vae", timeout=5) as reply:
                versions = json.load(reply)["model_version_status"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}  # Nothing is served yet.
        return {int(each["version"]): each["state"] for each in versions}

    def wait(self, version: int, state: str = "AVAILABLE") -> None:
        """Returns when `version` is in `state`."""
        self._wait(lambda: self.states().get(version) == state)

    def _wait(self, is_so) -> None:
        end = time.monotonic() + TIMEOUT
        while not is_so():
            if self.process.poll() is not None:
                raise ServerError(f"it ended with {self.process.returncode}")
            if time.monotonic() > end:
                raise ServerError(f"after {TIMEOUT} s: {self.states()}")
            time.sleep(0.05)


class ServerError(Exception):
    """The server does not serve what was waited for."""


def command(server: str) -> list[str]:
    """What starts `server`.

    Raises:
      unittest.SkipTest: it is not installed here.
    """
    if server == DOUBLE:
        double = ROOT / "tests/model_server_double.py"
        return [sys.executable, str(double)]
    binary = os.environ.get("TENSORFLOW_MODEL_SERVER") or shutil.which(REAL)
    if not binary:
        raise unittest.SkipTest(
            f"{REAL} is neither on PATH nor named by $TENSORFLOW_MODEL_SERVER: "
            "not tried with TensorFlow Serving itself"
        )
    return [binary]


@contextlib.contextmanager
def serving(
    server: str,
    base_path: str,
    batching: str | None = None,
    port: int | None = None,
    rest_api_port: int | None = None,
):
    """A `Server` of the model `vae`, whose versions are in `base_path`; one of
    them is served when it comes.

    Args:
      server: one of `SERVERS`.
      base_path: directory of versions.
      batching: file of batching parameters; unset: no batching.
      port: of gRPC; unset: a free one.
      rest_api_port: of REST; unset: a free one.

    Raises:
      unittest.SkipTest: see `command`.
      ServerError: nothing is served; holds what the process wrote.
    """
    free = _free_ports(2)
    port, rest_api_port = port or free[0], rest_api_port or free[1]
    arguments = [
        *command(server),
        f"--port={port}",
        f"--rest_api_port={rest_api_port}",
        "--model_name=vae",
        f"--model_base_path={base_path}",
        # The server takes whole seconds only.
        f"--file_system_poll_wait_seconds={0.2 if server == DOUBLE else 1}",
    ]
    if batching:
        arguments += [
            "--enable_batching=true",
            f"--batching_parameters_file={batching}",
        ]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            arguments,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        running = Server(
            f"http://127.0.0.1:{rest_api_port}", f"127.0.0.1:{port}", process
        )
        try:
            running._wait(lambda: "AVAILABLE" in running.states().values())
            yield running
        except ServerError as error:
            output.seek(0)
            raise ServerError(f"{server}: {error}\n{output.read()}") from None
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
