"""Latency and throughput of a served model: the session alone against a round
trip over gRPC, then many clients at once.

python -m benchmarks.speed.serving

Runs tensorflow_model_server where there is one ($TENSORFLOW_MODEL_SERVER, or on
PATH), else the double of the tests, whose Python serves a real session: its
figures are of the protocol, not of TensorFlow Serving."""

import collections
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import threading
import time
import unittest

import numpy as np

from benchmarks.shared.commands import ROOT
from vae_tf import command_line
from vae_tf.settings import Settings, setting

sys.path.append(str(ROOT / "tests"))
import model_server  # noqa: E402 (it is the tests' own)


@dataclasses.dataclass(frozen=True)
class Serving(Settings):
    latent_dim: int = setting(40, "D of the model, a 28x28 MLP", minimum=1)
    repetitions: int = setting(100, "requests of each size", minimum=5)
    clients: int = setting(64, "that ask at once", minimum=1)
    seconds: int = setting(60, "for how long", minimum=1)


def milliseconds(repetitions: int, ask, *arguments) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repetitions + 3):
        start = time.perf_counter()
        ask(*arguments)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])  # the first ones warm up


def inputs(signature: str, rows: int, latent_dim: int) -> np.ndarray:
    if signature == "sample":
        return np.arange(rows)
    generator = np.random.default_rng(rows)
    return generator.standard_normal((rows, latent_dim)).astype(np.float32)


def compare(session, client, settings: Serving) -> None:
    """Prints the table of latencies."""
    print("| signature | N | session, ms | gRPC, ms | ratio | images/s |")
    print("|---|---|---|---|---|---|")
    for signature, name in (("decode", "z"), ("sample", "seed")):
        for rows in (1, 16, 256):
            given = inputs(signature, rows, settings.latent_dim)
            alone = milliseconds(
                settings.repetitions, session.run, signature, {name: given}
            )
            served = milliseconds(
                settings.repetitions, getattr(client, signature), given
            )
            print(
                f"| {signature} | {rows} | {alone:.2f} | {served:.2f} | "
                f"{served / alone:.2f} | {1000 * rows / served:.0f} |"
            )


def resident_megabytes(process) -> float:
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def crowd(server, url: str, settings: Serving) -> None:
    """Prints what many clients got, and what the server's memory did."""
    from vae_tf.serving.client import Client
    from vae_tf.serving.errors import ServingError

    end = time.monotonic() + settings.seconds
    times, errors = [], collections.Counter()

    def ask(number):
        generator = np.random.default_rng(number)
        with Client(url) as client:
            while time.monotonic() < end:
                signature = generator.choice(["decode", "sample"])
                rows = int(generator.choice([1, 4, 16]))
                given = inputs(signature, rows, settings.latent_dim)
                start = time.perf_counter()
                try:
                    getattr(client, signature)(given)
                    times.append((rows, time.perf_counter() - start))
                except ServingError as error:
                    errors[type(error).__name__] += 1

    threads = [
        threading.Thread(target=ask, args=(number,))
        for number in range(settings.clients)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        time.sleep(settings.seconds / 6)
        memory.append(resident_megabytes(server.process))
    for thread in threads:
        thread.join()
    waited = [1000 * seconds for _, seconds in times]
    middle, late = np.percentile(waited, [50, 99])
    print(
        f"{settings.clients} clients for {settings.seconds} s: {len(times)} "
        f"requests, {sum(rows for rows, _ in times) / settings.seconds:.0f} "
        f"images/s, latency {middle:.0f} ms (median), {late:.0f} ms (99%), "
        f"errors {dict(errors) or 'none'}; server "
        + " -> ".join(f"{each:.0f}" for each in memory)
        + " MB"
    )


def main(given):
    settings = Serving(**given)
    import vae_tf
    from vae_tf.serving import check
    from vae_tf.serving.client import Client

    try:
        model_server.command(model_server.REAL)
        name = model_server.REAL
    except unittest.SkipTest:
        name = model_server.DOUBLE
    with tempfile.TemporaryDirectory() as directory:
        vae = vae_tf.VAE(
            vae_tf.Encoder(settings.latent_dim), vae_tf.Decoder((28, 28, 1))
        )
        bundle = vae_tf.export(vae, directory)
        print(f"server: {name}")
        with model_server.serving(name, directory) as server:
            with Client(f"grpc://{server.grpc}") as client:
                compare(check.Session(str(bundle)), client, settings)
        batching = str(ROOT / "deploy/batching.config")
        for one in (None, batching):
            print("with batching:" if one else "without batching:")
            with model_server.serving(name, directory, one) as server:
                crowd(server, f"grpc://{server.grpc}", settings)


if __name__ == "__main__":
    command_line.run(Serving, main, __doc__)
