"""Trains on several workers of this machine, each a process of its own; what
follows -- are flags of vae-train. On several machines, each starts one worker
itself: docs/distributed.md.

vae-launch --workers 2 -- --dataset mnist --run_dir runs/two, or
python -m vae_tf.runs.launch
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from vae_tf import command_line
from vae_tf.settings import Settings, UserError, setting

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30  # seconds until what was asked to end is ended


@dataclasses.dataclass(frozen=True)
class Launch(Settings):
    workers: int = setting(2, "processes, which share the cores", minimum=1)


def launch(workers: int, flags: list[str]) -> int:
    """Runs vae-train as so many workers, whose lines come with their numbers,
    and passes signals on to them; where one fails, the others are ended.

    Returns:
      0, or the exit code of the first worker that failed.
    """
    given = {flag.lstrip("-").split("=")[0] for flag in flags}
    if "run_dir" not in given:
        flags = [*flags, f"--run_dir=runs/{time.strftime('%Y%m%d-%H%M%S')}"]
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    threads = max((os.cpu_count() or 1) // workers, 1)
    processes: list[subprocess.Popen] = []

    def pass_on(number, _):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {
        one: signal.signal(one, pass_on)
        for one in SIGNALS
        if signal.getsignal(one) is not signal.SIG_IGN  # as nohup wants it
    }
    for number in range(workers):
        task = {"type": "worker", "index": number}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        environment = {
            "TF_CONFIG": json.dumps(cluster),
            "TF_NUM_INTRAOP_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "vae_tf.commands.train", *flags],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # A terminal's Ctrl-C comes by us.
            )
        )
    readers = [
        threading.Thread(target=_prefixed, args=pair)
        for pair in enumerate(processes)
    ]
    for reader in readers:
        reader.start()

    try:
        code = _wait(processes)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    for reader in readers:
        reader.join()
    return code


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _prefixed(number: int, process: Any) -> None:
    for line in process.stdout:
        print(f"[{number}] {line}", end="", flush=True)


def _wait(processes: list[subprocess.Popen]) -> int:
    """The exit code of the first that fails, once none runs any more."""
    code = 0
    while any(process.poll() is None for process in processes):
        failed = [process for process in processes if process.poll()]
        if failed and not code:
            code = failed[0].returncode
            code = code if code > 0 else 128 - code  # as a shell says a signal
            ended = time.monotonic()
            for process in processes:
                process.terminate()
        if code and time.monotonic() - ended > GRACE:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    codes = [process.returncode for process in processes if process.returncode]
    return code or (codes[0] if codes else 0)


def main() -> None:
    own, flags = sys.argv[:], []
    if "--" in own:
        place = own.index("--")
        own, flags = own[:place], own[place + 1 :]

    def action(given):
        if not flags:
            raise UserError(
                "vae-launch: expected flags of vae-train after --, as in "
                "vae-launch --workers 2 -- --dataset mnist, received none."
            )
        sys.exit(launch(Launch(**given).workers, flags))

    sys.argv = own
    command_line.run(Launch, action, __doc__)


if __name__ == "__main__":
    main()
