"""What hangs on `fit`: after each epoch, a state to resume from, the best
weights and a row of metrics; now and then, pictures; and all of it for
TensorBoard.
"""

import functools
import math
import pathlib
import signal
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from vae_tf.config import Config
from vae_tf.pictures import gallery, snapshots
from vae_tf.runs import checkpoints
from vae_tf.runs.averaging import averaged
from vae_tf.runs.background import Background
from vae_tf.runs.checkpoints import Progress
from vae_tf.runs.directory import best, save_best, write_metrics
from vae_tf.runs.interruption import Asked, Interrupted
from vae_tf.runs.workers import any_of, is_chief, put_back
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
      progress: from where training goes on, from `restore`; the first epoch
        that this sees leaves out the steps before it (`Data.after`).
      asked: whether to stop, once that is kept: `Interrupted` is raised then.
      began: when this process began to train, by `time.monotonic`.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        config: Config,
        start_epoch: Callable[[int], None],
        progress: Progress,
        asked: Asked,
        began: float,
    ):
        super().__init__()
        self.run_dir = run_dir
        self.config = config
        self.start_epoch = start_epoch
        self.history = list(progress.history)
        self.progress: Progress | None = progress  # until it goes on from there
        self.asked = asked
        self.background = Background()
        self._kept = time.monotonic()
        self._began = began - progress.seconds

    def set_model(self, model):
        super().set_model(model)
        self._strategy = model.distribute_strategy
        self._chief = is_chief(self._strategy)

    def on_epoch_begin(self, epoch, logs=None):
        # All workers ask each other, and then stop together.
        if any_of(self._strategy, self.asked.signal is not None):
            self._stop(0)
        self.start_epoch(epoch)
        self._skipped = 0
        if self.progress and self.progress.step:
            self._skipped = self.progress.step
            put_back(
                self._strategy,
                self.model.metrics_variables,
                self.progress.running,
            )
        self.progress = None

    def on_train_batch_end(self, batch, logs=None):
        step = self._skipped + batch + 1
        if step >= self._skipped + self.params["steps"]:
            return  # The end of the epoch is kept itself.
        waited, asked = time.monotonic() - self._kept, bool(self.asked.signal)
        due = waited > 60 * self.config.checkpoint_minutes or asked
        if any_of(self._strategy, due):
            self._keep(step)
            if any_of(self._strategy, asked):
                self._stop(step)

    def on_train_end(self, logs=None):
        self.background.wait()

    def _keep(self, step: int) -> None:
        state = self._state(step)
        self.background.wait()
        if self._chief:
            checkpoints.write(self.run_dir, state)
        self._kept = time.monotonic()

    def _state(self, step: int = 0) -> checkpoints.State:
        seconds = time.monotonic() - self._began
        return checkpoints.state(self.model, self.history, step, seconds)

    def _stop(self, step: int) -> None:
        count = len(self.history)
        reached = f"{count} epoch{'' if count == 1 else 's'}"
        if step:
            reached += f" and {step} steps of the next one"
        raise Interrupted(reached, self.asked.signal or signal.SIGTERM)

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": int(tf.convert_to_tensor(self.model.optimizer.iterations)),
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
        self._kept = time.monotonic()  # by the chief, as all workers know
        if self._chief:
            state, weights = self._state(), None
            if best(self.history) is row:
                with averaged(self.model):
                    weights = [
                        np.array(tf.convert_to_tensor(each))
                        for each in self.model.weights
                    ]
            # While the next epoch trains.
            self.background.start(
                self._write, state, weights, list(self.history)
            )
        self.model.stop_training = self.out_of_patience()

    def _write(self, state, weights, history) -> None:
        # In this order: what a run killed between two writes has not written,
        # `restore` writes of the state that comes first.
        checkpoints.write(self.run_dir, state)
        if weights is not None:
            self._twin.set_weights(weights)
            save_best(self.run_dir, self._twin)
        write_metrics(self.run_dir, history)

    @functools.cached_property
    def _twin(self) -> keras.Model:
        """A model that has the best weights, and is not trained."""
        return type(self.model).from_config(self.model.get_config())

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
    """Before the first step, after every few epochs and after the last, takes a
    snapshot of the model, which is drawn into `figures/` while training goes
    on.

    Args:
      run_dir: of the run.
      held: images to look at, from `snapshots.held_out`.
      every: epochs from one snapshot to the next.
      history: rows of `metrics.csv`, which another callback extends before this
        one is called.
      within: whether the model is that of the middle of an epoch, which nobody
        looks at.
      board: where the pictures are shown too.
      background: in which they are drawn. In that of a `RunRecorder`, no state
        is written before the snapshot of an earlier one is.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        held: snapshots.HeldOut,
        every: int,
        history: list[dict[str, float]],
        within: bool = False,
        board: "Board | None" = None,
        background: Background | None = None,
    ):
        super().__init__()
        self.run_dir = run_dir
        self.held = held
        self.every = every
        self.history = history
        self.within = within
        self.board = board
        self.recorded = gallery.recorded(run_dir, len(history))
        self.background = background or Background()

    def on_train_begin(self, logs=None):
        # Also what a run that was killed between a checkpoint and its snapshot
        # has left out.
        if not self.within:
            self._look_if_due()
        self.within = False

    def on_epoch_end(self, epoch, logs=None):
        self._look_if_due()

    def kl_per_dimension(self) -> np.ndarray | None:
        """`[D]`, nats, of the last snapshot, where it has such parts."""
        last = self.recorded[-1] if self.recorded else None
        return last.per_dimension if last and last.factorizes else None

    def look_last(self) -> None:
        """After the last epoch; everything is drawn then."""
        if not self.recorded or self.recorded[-1].epoch < len(self.history):
            self._look()
        self.background.wait()

    def _look_if_due(self) -> None:
        epoch = len(self.history)
        known = [snapshot.epoch for snapshot in self.recorded]
        if epoch % self.every == 0 and epoch not in known:
            self._look()

    def _look(self) -> None:
        previous = self.recorded[-1] if self.recorded else None
        epoch = len(self.history)
        with averaged(self.model):
            snapshot, z = snapshots.taken(
                self.model, self.held, epoch, previous
            )
        self.background.wait()
        self.recorded.append(snapshot)
        # While training goes on.
        self.background.start(self._draw, snapshot, z, self.history[:epoch])

    def _draw(self, snapshot, z, history) -> None:
        snapshot = self.recorded[-1] = snapshots.judged(snapshot, z)
        gallery.record(self.run_dir, snapshot)
        pictures = gallery.draw(self.recorded, history)
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
        step = tf.constant(epoch + 1, tf.int64)
        self._scalars(step, {k: tf.constant(v) for k, v in logs.items()})

    @tf.function
    def _scalars(self, step, logs):
        # Compiled: one by one they cost milliseconds.
        with self.writer.as_default(step=step):
            for name, value in logs.items():
                kind = "validation" if name.startswith("val_") else "training"
                tf.summary.scalar(f"{name.removeprefix('val_')}/{kind}", value)

    def on_train_end(self, logs=None):
        self.writer.flush()

    def say(self, line: str, epoch: int) -> None:
        """Writes what training says of itself."""
        with self.writer.as_default(step=epoch):
            tf.summary.text("health", line)

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
