"""Contestants in processes of their own, timed in turns.

A contestant prepares itself and calls `serve`; `Contestant` starts one, and
asks it for a round whenever it is its turn. The others wait meanwhile, so that
all meet the same machine."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable


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
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dtype", default="float32", help="of products")
    parser.add_argument("--images", help="npz of bits")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--latent", type=int)
    parser.add_argument("--batch", type=int)
    return parser.parse_args()


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
