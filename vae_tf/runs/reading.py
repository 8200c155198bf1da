"""What a run says of itself and of what was measured. No TensorFlow here."""

import json
import os
import pathlib
import shlex
import shutil
import sys
from typing import Any

from vae_tf import config
from vae_tf.config import Config
from vae_tf.data.files import is_temporary
from vae_tf.runs import sums
from vae_tf.runs.lock import LOCK
from vae_tf.settings import UserError

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
HEALTH = "health.log"  # what training had to say of itself


def is_left_over(path: pathlib.Path) -> bool:
    """Whether a file is of a run that ended before its `config.json`."""
    empty = (
        path.name == CHECKPOINTS and path.is_dir() and not any(path.iterdir())
    )
    return empty or path.name in (LOCK, sums.SUMS) or is_temporary(path)


def is_begun(run_dir: str | os.PathLike) -> bool:
    """Whether a run is there to go on with, and not only a directory that one
    was to be written to when it was ended.
    """
    path = pathlib.Path(run_dir)
    try:
        locked = (path / LOCK).is_file()
        return not locked or not all(map(is_left_over, path.iterdir()))
    except OSError:
        return True  # Said where it is read.


def read_run(run_dir: str | os.PathLike) -> dict[str, Any]:
    """What `config.json` of a run says (`config.read_run`).

    Raises:
      UserError: there is no such run, or the file is damaged or was changed.
    """
    _require_sealed(run_dir)
    return config.read_run(run_dir)


def config_of(run_dir: str | os.PathLike) -> Config:
    """The settings of a run; raises UserError as `read_run` does."""
    _require_sealed(run_dir)
    return Config.load(run_dir)


def _require_sealed(run_dir: str | os.PathLike) -> None:
    try:
        sums.read(pathlib.Path(run_dir) / CONFIG)
    except OSError:
        pass  # Said where it is parsed.


def evaluation_path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Where what was measured of a run on a split is written."""
    return run_dir / f"evaluation-{split}.json"


def read_evaluation(run_dir: pathlib.Path, split: str) -> dict[str, Any]:
    """What was measured of a run on a split.

    Raises:
      FileNotFoundError: nothing was.
      UserError: the file is damaged, or was changed.
    """
    path = evaluation_path(run_dir, split)
    try:
        found = json.loads(sums.read(path))
        if found["split"] != split:
            raise ValueError(f"of the split {found['split']!r}")
        return found
    except FileNotFoundError:
        raise
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected what evaluate.py writes, received a damaged "
            f"file ({error}): {to_measure(run_dir, split)} makes it anew."
        ) from None


def to_measure(run_dir: pathlib.Path, split: str) -> str:
    """The command that measures a run on a split."""
    return f"{command('evaluate', run_dir)} --split {split}"


def command(name: str, run_dir: str | os.PathLike) -> str:
    """A command on a run, as whoever typed this one has it."""
    program = f"vae-{name}"
    if pathlib.Path(sys.argv[0]).suffix == ".py":
        program = f"{_python()} {name}.py"
    return f"{program} --run_dir {shlex.quote(str(run_dir))}"


def _python() -> str:
    """What starts this Python, whether its environment is active or not."""
    found = shutil.which("python")
    if found and os.path.abspath(found) == os.path.abspath(sys.executable):
        return "python"
    nearer = min(sys.executable, os.path.relpath(sys.executable), key=len)
    return shlex.quote(nearer)
