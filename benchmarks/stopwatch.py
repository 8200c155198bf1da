"""Contestants in processes of their own, timed in turns.

A contestant prepares itself and calls `serve`; `Contestant` starts one, and
asks it for a round whenever it is its turn. The others wait meanwhile, so that
all meet the same machine."""

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
