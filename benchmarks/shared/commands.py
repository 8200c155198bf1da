"""How a benchmark runs the project's own scripts: as their users do."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command: str, *arguments: str) -> None:
    """Runs `train.py --flag value`, with further arguments, from any directory;
    stops with its exit code where that is not 0.
    """
    script, *rest = command.split()
    finished = subprocess.run(
        [sys.executable, str(ROOT / script), *rest, *arguments]
    )
    if finished.returncode:
        sys.exit(finished.returncode)
