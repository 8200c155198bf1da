"""What hangs on `fit`: after each epoch, a row of metrics, the best weights and
a state to resume from; now and then, pictures; and all of it for TensorBoard.
"""

import math
import pathlib
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from vae_tf.config import Config
from vae_tf.data.files import written_atomically
from vae_tf.pictures import gallery, snapshots
from vae_tf.runs import checkpoints
from vae_tf.runs.directory import (
    BEST_WEIGHTS,
    best,
    write_metrics,
)
from vae_tf.settings import UserError


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
        checkpoints.save(self.run_dir, self.model, epoch + 1)
        self.model.stop_training = self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Whether the last `patience` epochs brought no better bound in
        validation.
        """
        patience = self.config.early_stopping_patience
        if not patience or not self.history:
            return False
        waited = self.history[-1]["epoch"] - best(self.history)["epoch"]
        return waited >= patience


class Pictures(keras.callbacks.Callback):
    """Before the first step, after every few epochs and after the last, records
    a snapshot of the model and draws it into `figures/`.

    Args:
      run_dir: of the run.
      held: images to look at, from `snapshots.held_out`.
      every: epochs from one snapshot to the next.
      history: rows of `metrics.csv`, which another callback extends before this
        one is called.
      board: where the pictures are shown too.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        held: snapshots.HeldOut,
        every: int,
        history: list[dict[str, float]],
        board: "Board | None" = None,
    ):
        super().__init__()
        self.run_dir = run_dir
        self.held = held
        self.every = every
        self.history = history
        self.board = board

    def on_train_begin(self, logs=None):
        self.recorded = gallery.recorded(self.run_dir, len(self.history))
        if not self.history:
            self.recorded = []
            self._look()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self._look()

    def on_train_end(self, logs=None):
        if not self.recorded or self.recorded[-1].epoch < len(self.history):
            self._look()

    def _look(self) -> None:
        previous = self.recorded[-1] if self.recorded else None
        snapshot = snapshots.take(
            self.model, self.held, len(self.history), previous
        )
        gallery.record(self.run_dir, snapshot)
        self.recorded.append(snapshot)
        pictures = gallery.draw(self.recorded, self.history)
        gallery.write(self.run_dir, pictures)
        if self.board:
            self.board.show(snapshot, pictures)


class Board(keras.callbacks.Callback):
    """Metrics and pictures as TensorBoard shows them.

    Args:
      directory: of the event files.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(directory))

    def on_epoch_end(self, epoch, logs=None):
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                kind = "validation" if name.startswith("val_") else "training"
                tf.summary.scalar(f"{name.removeprefix('val_')}/{kind}", value)

    def on_train_end(self, logs=None):
        self.writer.flush()

    def show(self, snapshot: snapshots.Snapshot, pictures: dict) -> None:
        """Writes a snapshot's measures and its pictures."""
        with self.writer.as_default(step=snapshot.epoch):
            for name, picture in pictures.items():
                tf.summary.image(name, np.asarray(picture)[np.newaxis])
            tf.summary.histogram(
                snapshot.per_dimension_name, snapshot.per_dimension
            )
            if math.isfinite(snapshot.accuracy):
                tf.summary.scalar("knn_accuracy", snapshot.accuracy)
