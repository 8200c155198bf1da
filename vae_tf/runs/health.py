"""A training that goes wrong says so, and why, and what to try."""

import contextlib
import functools
import math
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from vae_tf.settings import UserError

IN_A_ROW = 3  # steps without a finite bound that end a training
COLLAPSED = 0.1  # nats of KL in all: below, q(z|x) tells nothing of x
UNUSED = 0.01  # nats of KL of a latent dimension (Burda et al. 2015: variance)
FALLS = 5  # epochs after one another
EXPLODED = 10.0  # times what knowing nothing of any pixel costs
SECONDS = 1.0  # from one look at the weights to the next, within an epoch
ROOM = 10  # times what was written last, below which a disk is nearly full


class Diverged(UserError):
    """Training has left the finite numbers."""


class Health(keras.callbacks.Callback):
    """Leaves out the steps whose bound is no finite number, and counts them;
    ends a training in which three come in a row, or weights are no finite
    numbers, with `Diverged`; and says, once each, that the posterior has
    collapsed, that a bound explodes or only falls, or that the disk is nearly
    full.

    In `fit` as in `train`: `vae.fit(..., callbacks=[vae_tf.Health()])`.

    Args:
      directory: where the batch of the first step that was left out is saved,
        `non_finite.npz`, and whose disk is looked at; None for neither.
      batches_from: number of a batch of the pass at hand -> the images from it
        on, which the batch is taken of.
      say: takes each line.

    Raises:
      Diverged: a `UserError`, out of `fit`.
    """

    def __init__(
        self,
        directory: pathlib.Path | None = None,
        batches_from: Callable[[int], tf.data.Dataset] | None = None,
        say: Callable[[str], None] | None = None,
    ):
        super().__init__()
        self.directory = directory
        self.batches_from = batches_from
        self.say = say or (lambda line: warnings.warn(line, stacklevel=3))
        self.skipped = 0  # in all
        self._said: set[str] = set()
        self._bounds: list[float] = []  # in validation

    def set_model(self, model):
        super().set_model(model)
        # Of several devices, one step is none's alone to leave out.
        strategy = model.distribute_strategy
        model.guarded(strategy.num_replicas_in_sync == 1)
        # Workers look together, at the end of an epoch.
        self._alone = strategy.cluster_resolver is None
        self._finite = tf.function(
            functools.partial(_all_finite, model.trainable_variables)
        )

    def on_train_begin(self, logs=None):
        counts = self.model.non_finite.counts  # of another training
        counts.assign(tf.zeros_like(counts))

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = 0
        self._looked = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        # Anew in each epoch, of which one that goes on has steps already, and
        # after an evaluation within one, which has set the counts back.
        if self._begun != self.model.passes_begun:
            self._begun = self.model.passes_begun
            self._left = self._counts()[1]

    def _counts(self) -> np.ndarray:
        return tf.convert_to_tensor(self.model.non_finite.counts).numpy()

    def on_train_batch_end(self, batch, logs=None):
        _, left, _, most, first, *terms = self._counts()
        if left > self._left:
            words = self._skip(int(left - self._left), int(first), terms)
            self._left = left
            if most >= IN_A_ROW:
                self._diverged(words)
        # Each look costs as much as a step.
        if self._alone and time.monotonic() - self._looked > SECONDS:
            self._look_at_weights()

    def _look_at_weights(self) -> None:
        self._looked = time.monotonic()
        if not self._finite():
            names = [
                variable.path
                for variable in self.model.trainable_variables
                if not np.all(np.isfinite(tf.convert_to_tensor(variable)))
            ]
            self._diverged(
                "weights: expected finite numbers, received others in "
                f"{', '.join(names[:3])}."
            )

    def _diverged(self, words: str) -> None:
        rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        raise Diverged(f"{words} A --learning_rate below {rate:.3g} may help.")

    def _skip(self, count: int, first: int, terms: list) -> str:
        """Counts steps that were left out, and says what the first one was."""
        self.skipped += count
        names = ("E_q[log p(x|z)]", "KL(q(z|x) || p(z))")
        bad = [n for n, fine in zip(names, terms, strict=True) if not fine]
        words = (
            "bound: expected a finite number, received another in step "
            f"{first} of this epoch, whose {' and '.join(bad) or 'average'} is "
            "none"
        )
        if self.directory and self.batches_from and "batch" not in self._said:
            self._said.add("batch")
            (images,) = self.batches_from(first).take(1)
            path = self.directory / "non_finite.npz"
            parts = images if isinstance(images, dict) else {"image": images}
            arrays = {name: np.asarray(part) for name, part in parts.items()}
            with contextlib.suppress(OSError):  # a full disk
                np.savez(path, **arrays)  # type: ignore[arg-type]  # NumPy's stub
                words += f" (its images are in {path})"
        self._once("skipped", f"{words}: the step is left out.")
        return f"{words}; {self.skipped} steps were left out."

    def on_epoch_end(self, epoch, logs=None):
        self._look_at_weights()  # before anything of them is kept
        self._look_at_bound(logs)
        self._look_at_disk()

    def _look_at_bound(self, logs) -> None:
        name = f"val_{self.model.objective.bound}"
        if name not in logs:
            return
        bounds = self._bounds
        bounds.append(logs[name])
        pixels = math.prod(self.model.image_shape)
        if bounds[-1] < -EXPLODED * pixels * math.log(256):
            self._once(
                "exploded",
                f"{name}: {bounds[-1]:.3g} nats per image is worse than "
                "knowing nothing of any pixel: training explodes. Try a "
                "smaller --learning_rate, or --kl_warmup_epochs.",
            )
        recent = bounds[-FALLS - 1 :]
        if len(recent) > FALLS and recent == sorted(recent, reverse=True):
            self._once(
                "falls",
                f"{name} has fallen in {FALLS} epochs, one after the other, "
                f"from {recent[0]:.2f} to {recent[-1]:.2f} nats: the model "
                "learns its training images by heart, or its step size is too "
                "large. Try --early_stopping_patience, fewer --hidden_units, "
                "or a smaller --learning_rate.",
            )

    def _look_at_disk(self) -> None:
        if self.directory is None:
            return
        free = shutil.disk_usage(self.directory).free
        size = sum(4 * math.prod(w.shape) for w in self.model.weights)
        if free < ROOM * 3 * size:
            self._once(
                "disk",
                f"{self.directory}: {free / 1e6:.0f} MB are free, too few for "
                f"some more checkpoints of about {3 * size / 1e6:.0f} MB. "
                "Nothing that was written is lost when they do not fit.",
            )

    def look_at_posterior(self, kl: float, per_dimension: np.ndarray | None):
        """Says whether the posterior has collapsed.

        Args:
          kl: of q(z|x) from p(z), nats per image, in validation.
          per_dimension: its parts `[D]`, where it has such parts.
        """
        advice = (
            "Try --kl_warmup_epochs, --free_bits, --kl_schedule cyclical or "
            "more --epochs."
        )
        if kl < COLLAPSED:
            self._once(
                "collapsed",
                f"kl: {kl:.3f} nats per image: the posterior has collapsed "
                f"onto the prior, and z tells nothing of x. {advice}",
            )
        elif per_dimension is not None and min(per_dimension) < UNUSED:
            used = int(np.sum(per_dimension >= UNUSED))
            self._once(
                "unused",
                f"latent_dim: {used} of {len(per_dimension)} latent dimensions "
                f"tell {UNUSED} nats of x or more. {advice}",
            )

    def look_at_best(self, name: str, best: float, uniform: float):
        """Says whether nothing was learned: the best epoch's bound is no higher
        than log p(x) of a model without parameters.

        Args:
          name: of the validation bound.
          best: its largest value, nats per image.
          uniform: log p(x), nats per image, where each pixel is uniform.
        """
        if best <= uniform:
            self._once(
                "uniform",
                f"{name}: {best:.2f} nats per image, at best, are no more than "
                f"the {uniform:.2f} of a model to which every value of every "
                "pixel is as likely. Try more --epochs or, of few images, a "
                "smaller --batch_size.",
            )

    def _once(self, kind: str, line: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.say(line)


def _all_finite(variables: list) -> tf.Tensor:
    # A sum is finite only where its parts are, and needs no memory.
    return tf.reduce_all(
        [tf.math.is_finite(tf.reduce_sum(each.value)) for each in variables]
    )
