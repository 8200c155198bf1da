"""The moving average of a model's weights, which an optimizer with `use_ema`
keeps: theta' <- m theta' + (1 - m) theta after each update.

Polyak and Juditsky 1992, "Acceleration of stochastic approximation by
averaging". It is what a run validates, keeps, draws, evaluates and exports;
what is trained, and what a run resumes from, are the weights themselves."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """While a model has the average of its weights in their place; as it is
    where its optimizer keeps none.
    """
    _swap(model)
    try:
        yield
    finally:
        _swap(model)


def _swap(model: keras.Model) -> None:
    """Weights <-> averages, to the bit, which Keras' own `SwapEMAWeights`, by
    sums and differences, is not.
    """
    for weight, average in _pairs(model):
        held = tf.convert_to_tensor(weight) + 0.0  # not a view of the weight
        weight.assign(average)
        average.assign(held)


def _pairs(model: keras.Model) -> Iterator[tuple]:
    """Each trained weight and its average; none where none is kept."""
    optimizer: Any = getattr(model, "optimizer", None)
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if averages:
        yield from zip(optimizer._trainable_variables, averages, strict=True)


class AverageValidated(keras.callbacks.Callback):
    """Puts the average in place of the weights while `fit` validates."""

    def on_train_begin(self, logs=None):
        if not int(tf.convert_to_tensor(self.model.optimizer.iterations)):
            for weight, average in _pairs(self.model):
                average.assign(weight)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.use_ema = True

    def on_test_begin(self, logs=None):
        _swap(self.model)

    def on_test_end(self, logs=None):
        _swap(self.model)

    def on_epoch_end(self, epoch, logs=None):
        # Or `fit` ends with the average in place of the weights, from which a
        # further `fit` does not go on as one that had not ended.
        self.model.optimizer.use_ema = False
