"""Contestants in processes of their own, timed in turns.

A contestant prepares itself and calls `serve`; `Contestant` starts one, and
asks it for a round whenever it is its turn. The others wait meanwhile, so that
all meet the same machine."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.shared.commands import ROOT


def serve(play: Callable[[], int]) -> None:
    """For each line on standard input, plays a round, which returns its number
    of steps, and prints milliseconds per step.
    """
    play()  # warms up: compiles, allocates
    print("READY", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        steps = play()
        seconds = time.perf_counter() - start
        print("ROUND", 1000 * seconds / steps, flush=True)


def fitting(vae, data):
    """A round of one pass over the data."""

    def play():
        vae.fit(data, epochs=1, verbose=0)
        return len(data)

    return play


def model_arguments(description: str) -> argparse.Namespace:
    """The model and the images that a contestant was asked to train on."""
    return model_parser(description).parse_args()


def model_parser(description: str) -> argparse.ArgumentParser:
    """Parses `model_arguments`, and further ones of a contestant."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dtype", default="float32", help="of products")
    parser.add_argument("--images", help="npz of bits")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--latent", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument(
        "--family",
        default="mean_field",
        choices=("mean_field", "vamp", "iaf"),
        help="of 500 pseudo-inputs; of two steps of 320 units",
    )
    parser.add_argument("--samples", type=int, default=1, help="K of the bound")
    return parser


class Contestant:
    """A process that serves rounds."""

    def __init__(self, *command: str, **environment):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **environment,
        )
        self._answer()

    def milliseconds(self) -> float:
        """Of a step in the next round."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._answer()[0])

    def leave(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> list[str]:
        for line in self.process.stdout:
            word, *rest = line.split() or [""]
            if word in ("READY", "ROUND"):
                return rest
        sys.exit(f"{self.process.args}: ended before it answered.")


def in_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list]:
    """Milliseconds per step of each contestant, round by round."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    contestants = {
        name: Contestant(*command, env=environment)
        for name, command in commands.items()
    }
    times: dict[str, list] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant.milliseconds())
    for contestant in contestants.values():
        contestant.leave()
    return times


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    middle = statistics.median(values)
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"


def ratios(times: list[float], ours: list[float]) -> list[float]:
    """Of each round."""
    return [one / two for one, two in zip(times, ours, strict=True)]
