"""What hangs on `fit`: after each epoch, a row of metrics, the best weights,
and a state to resume from.
"""

import math
import pathlib
import re
import time
from collections.abc import Callable

import keras
import numpy as np

from vae_tf.config import Config, UserError
from vae_tf.runs import (
    BEST_WEIGHTS,
    CHECKPOINTS,
    METRICS,
    best,
    load_best,
    read_metrics,
    write_metrics,
    written_atomically,
)

KEPT_CHECKPOINTS = (
    2  # the newest, and one before it should the newest be damaged
)


class RunRecorder(keras.callbacks.Callback):
    """Keeps a run directory up to date, and stops a run that diverges or no
    longer improves.

    Args:
      run_dir: where `metrics.csv`, `best.weights.h5` and `checkpoints/` are
        written.
      config: of the run.
      start_epoch: called with the epoch's number before each epoch, such as
        `Data.start_epoch`.
      history: rows of the epochs finished before this call, from `restore`.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        config: Config,
        start_epoch: Callable[[int], None],
        history: list[dict[str, float]],
    ):
        super().__init__()
        self.run_dir = run_dir
        self.config = config
        self.start_epoch = start_epoch
        self.history = list(history)

    def on_train_begin(self, logs=None):
        self._began = time.monotonic() - (
            self.history[-1]["seconds"] if self.history else 0.0
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.start_epoch(epoch)

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": int(self.model.optimizer.iterations),
            "seconds": round(time.monotonic() - self._began, 3),
            **{
                prefix + name: float(logs[prefix + name])
                for prefix in ("", "val_")
                for name in self.model.objective.names
            },
        }
        if not all(map(math.isfinite, row.values())):
            raise UserError(
                "--learning_rate: expected a step size at which training "
                f"converges, received {self.config.learning_rate}, with which "
                f"epoch {row['epoch']} ended at an ELBO of {row['elbo']} "
                f"(validation: {row['val_elbo']}). The {len(self.history)} "
                f"epochs before it are in {self.run_dir}."
            )
        self.history.append(row)
        # In this order, a run killed between two writes is resumed from a state
        # all earlier files agree with.
        write_metrics(self.run_dir, self.history)
        if best(self.history) is row:
            with written_atomically(self.run_dir / BEST_WEIGHTS) as path:
                self.model.save_weights(path)
        save_checkpoint(self.run_dir, self.model, epoch + 1)
        self.model.stop_training = self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Whether the last `patience` epochs brought no better `val_elbo`."""
        patience = self.config.early_stopping_patience
        if not patience or not self.history:
            return False
        waited = self.history[-1]["epoch"] - best(self.history)["epoch"]
        return waited >= patience


def save_checkpoint(
    run_dir: pathlib.Path, model: keras.Model, epoch: int
) -> None:
    """Writes weights, optimizer state and noise generator after `epoch` epochs,
    and drops old checkpoints.
    """
    arrays = {
        str(number): np.asarray(variable)
        for number, variable in enumerate(_state(model))
    }
    (run_dir / CHECKPOINTS).mkdir(exist_ok=True)
    with written_atomically(
        run_dir / CHECKPOINTS / f"epoch-{epoch:05d}.npz"
    ) as path:
        np.savez(path, **arrays)
    for old in _checkpoints(run_dir)[:-KEPT_CHECKPOINTS]:
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
    epoch = int(re.search(r"\d+", path.name).group())
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
    return model.weights + [model.noise_seeds.state] + model.optimizer.variables
