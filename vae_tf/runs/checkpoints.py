"""The state that a run resumes from, after each epoch; the newest good one is
used.
"""

import pathlib
import re

import keras
import numpy as np

from vae_tf.data.files import written_atomically
from vae_tf.runs.directory import (
    CHECKPOINTS,
    METRICS,
    load_best,
    read_metrics,
)
from vae_tf.settings import UserError

KEPT = 2  # the newest, and one before it should the newest be damaged


def save(run_dir: pathlib.Path, model: keras.Model, epoch: int) -> None:
    """Writes weights and optimizer state after `epoch` epochs, and drops old
    checkpoints.
    """
    arrays = {
        str(number): np.asarray(variable)
        for number, variable in enumerate(_state(model))
    }
    (run_dir / CHECKPOINTS).mkdir(exist_ok=True)
    with written_atomically(
        run_dir / CHECKPOINTS / f"epoch-{epoch:05d}.npz"
    ) as path:
        np.savez(path, **arrays)  # type: ignore[arg-type]  # NumPy's stub
    for old in _checkpoints(run_dir)[:-KEPT]:
        old.unlink()


def restore(
    run_dir: pathlib.Path, model: keras.Model
) -> list[dict[str, float]]:
    """Sets a compiled model to the newest good checkpoint, and gives the rows
    of the epochs before it.

    A run that finished no epoch has no checkpoint and no rows: the model stays
    as it is.

    Raises:
      UserError: no checkpoint is good, the newest good one belongs to another
        model, or the metrics or best weights beside it are missing or damaged.
    """
    history = read_metrics(run_dir)
    # A run killed in its first epoch may have written its row, and no more.
    if len(history) <= 1 and not _checkpoints(run_dir):
        return []
    path, arrays = _newest_good_checkpoint(run_dir)
    epoch = int(re.findall(r"\d+", path.name)[0])
    if len(history) < epoch:
        raise UserError(
            f"{run_dir / METRICS}: expected the {epoch} epochs before "
            f"{path.name}, received {len(history)}."
        )
    variables = _state(model)
    if [array.shape for array in arrays] != [
        tuple(variable.shape) for variable in variables
    ]:
        raise UserError(
            f"--resume: expected the model of {path}, received one with other "
            "variables."
        )
    load_best(run_dir, model)  # Needed in the end: better missed now.
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return history[:epoch]


def _newest_good_checkpoint(
    run_dir: pathlib.Path,
) -> tuple[pathlib.Path, list[np.ndarray]]:
    for path in reversed(_checkpoints(run_dir)):
        try:
            with np.load(path) as file:
                return path, [
                    file[str(number)] for number in range(len(file.files))
                ]
        except Exception:
            # A damaged zip raises nearly anything; the one before it will do.
            continue
    raise UserError(
        f"{run_dir / CHECKPOINTS}: expected a checkpoint to resume from, "
        "received none that is whole."
    )


def _checkpoints(run_dir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((run_dir / CHECKPOINTS).glob("epoch-*.npz"))


def _state(model: keras.Model) -> list[keras.Variable]:
    """Every variable that the rest of a run depends on."""
    annealed = list(model.objective.values.values())
    return model.weights + model.optimizer.variables + annealed
