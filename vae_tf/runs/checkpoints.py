"""The state that a run resumes from, after each epoch and, in a long one, in
between; the newest good one is used.
"""

import json
import pathlib
import re
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf.data.files import unpacked
from vae_tf.runs.directory import (
    BEST_WEIGHTS,
    CHECKPOINTS,
    METRICS,
    best,
    load_best,
    read_metrics,
    save_best,
    write_metrics,
)
from vae_tf.runs.sums import written
from vae_tf.runs.workers import apart
from vae_tf.settings import UserError

KEPT = 3  # the newest, and others should the newest be damaged
NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.npz")


class Progress(NamedTuple):
    """How far a run has come."""

    history: list[dict[str, float]]  # a row of metrics per finished epoch
    step: int = 0  # of the epoch after them
    # Sums of its metrics, of each device.
    running: tuple[np.ndarray, ...] = ()
    seconds: float = 0.0  # of training until then

    @property
    def name(self) -> str:
        """Of its checkpoint."""
        within = f"-step-{self.step:09d}" if self.step else ""
        return f"epoch-{len(self.history):05d}{within}.npz"


class State(NamedTuple):
    """What a run resumes from, as arrays of its own."""

    name: str  # of its checkpoint
    arrays: dict[str, np.ndarray]


def state(
    model: keras.Model,
    history: list[dict[str, float]],
    step: int = 0,
    seconds: float = 0.0,
) -> State:
    """Weights and optimizer state after the epochs of `history` and, in the
    next one, `step` steps, with its metrics so far and the `seconds` that all
    of it took. Within an epoch, all workers call this together.
    """
    strategy = model.distribute_strategy
    running = apart(strategy, model.metrics_variables) if step else []
    # Copies, of which training changes nothing while they are written; by way
    # of a tensor, as a variable of several devices has no array.
    values = [np.array(tf.convert_to_tensor(each)) for each in _state(model)]
    arrays = {
        f"{kind}{number}": array
        for kind, values in (("", values), ("running", running))
        for number, array in enumerate(values)
    }
    arrays["seconds"] = np.asarray(seconds)
    arrays["history"] = np.frombuffer(json.dumps(history).encode(), np.uint8)
    return State(Progress(history, step).name, arrays)


def write(run_dir: pathlib.Path, state: State) -> None:
    """Writes a state to resume from, and drops old ones.

    Raises:
      UserError: it cannot be written; the checkpoints before it are there.
    """
    if not all(np.all(np.isfinite(array)) for array in state.arrays.values()):
        return  # Not to be gone back to; whoever looks at weights says it.
    directory = run_dir / CHECKPOINTS
    directory.mkdir(exist_ok=True)
    with written(directory / state.name) as path:
        np.savez(path, **state.arrays)  # type: ignore[arg-type]  # NumPy's stub
    for old in _checkpoints(run_dir)[:-KEPT]:
        old.unlink()


def restore(
    run_dir: pathlib.Path, model: keras.Model, writes: bool = True
) -> Progress:
    """Sets a compiled model to the newest good checkpoint; makes the metrics
    and the best weights beside it agree with it.

    A run that has no checkpoint yet begins anew: the model stays as it is. So
    does a constant step size, which is that of `compile`. With `writes` False,
    another process makes the files agree.

    Raises:
      UserError: no checkpoint is good, the newest good one belongs to another
        model, or the best weights of an earlier epoch are missing or damaged.
    """
    # A run killed in its first epoch may have written its row, and no more.
    if not _checkpoints(run_dir) and not (run_dir / BEST_WEIGHTS).exists():
        return Progress([])
    path, progress, arrays = _newest_good_checkpoint(run_dir)
    variables = _state(model)
    if [array.shape for array in arrays] != [
        tuple(variable.shape) for variable in variables
    ]:
        raise UserError(
            f"--resume: expected the model of {path}, received one with other "
            "variables."
        )
    history = progress.history
    is_best = history and not progress.step and best(history) is history[-1]
    if history and not is_best:
        load_best(run_dir, model)  # Needed in the end: better missed now.
    rate = model.optimizer._learning_rate  # a variable, or a schedule
    for variable, array in zip(variables, arrays, strict=True):
        if variable is not rate:
            variable.assign(array)
    if not writes:
        return progress
    if is_best:  # Whoever was killed may not have written them any more.
        save_best(run_dir, model)
    if history and _written(run_dir) != history:
        write_metrics(run_dir, history)
    return progress


def _written(run_dir: pathlib.Path) -> list[dict[str, float]] | None:
    """The rows in `metrics.csv`; None, and a word, where it is damaged."""
    try:
        return read_metrics(run_dir)
    except UserError as error:
        warnings.warn(f"{error} It is written anew.", stacklevel=2)
        return None


def _newest_good_checkpoint(
    run_dir: pathlib.Path,
) -> tuple[pathlib.Path, Progress, list[np.ndarray]]:
    for path in reversed(_checkpoints(run_dir)):
        try:
            arrays = unpacked(path)
            epochs, step = _place(path)
            history = arrays.pop("history", None)
            if history is None:  # of version 0.1
                rows = read_metrics(run_dir)[:epochs]
            else:
                rows = json.loads(history.tobytes())
            if len(rows) != epochs:
                raise UserError(
                    f"{run_dir / METRICS}: expected the {epochs} epochs before "
                    f"{path.name}, received {len(rows)}."
                )
            # Older ones say it of whole epochs alone.
            ended = rows[-1]["seconds"] if rows else 0.0
            seconds = float(arrays.get("seconds", ended))
            running = _numbered(arrays, "running")
            progress = Progress(rows, step, running, seconds)
            return path, progress, [*_numbered(arrays, "")]
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            warnings.warn(
                f"{path} is damaged ({error}): the run goes on from the "
                "checkpoint before it.",
                stacklevel=2,
            )
    raise UserError(
        f"{run_dir / CHECKPOINTS}: expected a checkpoint to resume from, "
        "received none that is whole."
    )


def _numbered(arrays: dict[str, np.ndarray], kind: str) -> tuple:
    """Those named `<kind>0`, `<kind>1`, and so on."""
    names = (name for name in arrays if re.fullmatch(rf"{kind}\d+", name))
    count = sum(1 for _ in names)
    try:
        return tuple(arrays[f"{kind}{number}"] for number in range(count))
    except KeyError as error:
        raise ValueError(f"no array {error}") from None


def _checkpoints(run_dir: pathlib.Path) -> list[pathlib.Path]:
    """From the oldest on."""
    paths = (run_dir / CHECKPOINTS).glob("epoch-*.npz")
    return sorted(filter(_place, paths), key=_place)


def _place(path: pathlib.Path) -> tuple[int, ...]:
    """Epochs that were finished, and steps of the next one; () of a file of
    another name.
    """
    found = NAME.fullmatch(path.name)
    return (int(found[1]), int(found[2] or 0)) if found else ()


def _state(model: keras.Model) -> list[keras.Variable]:
    """Every variable that the rest of a run depends on."""
    annealed = list(model.objective.values.values())
    return model.weights + model.optimizer.variables + annealed
