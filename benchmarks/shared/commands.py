"""How a benchmark runs the project's own scripts: as their users do."""

import json
import pathlib
import subprocess
import sys

import numpy as np

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


def measured(
    train: str, evaluate: str, run_dir: pathlib.Path, data_dir: str | None
) -> tuple[dict, np.ndarray]:
    """The test figures of a run, and log p(x) of each image `[B]`, in nats;
    trained and evaluated by these commands where that has not been done.
    """
    place = ["--run_dir", str(run_dir)]
    if data_dir:
        place += ["--data_dir", data_dir]
    if not (run_dir / "evaluation-test.json").exists():
        begun = ["--resume"] if (run_dir / "config.json").exists() else []
        run(train, *place, *begun)
        run(evaluate, *place)
    found = json.loads((run_dir / "evaluation-test.json").read_text())
    with np.load(run_dir / "evaluation-test.npz") as file:
        return found, file["log_marginal_likelihood"]
