"""A pass over a dataset that is set up where it is read.

Keras asks a dataset for an iterator when a pass begins, and again at its end,
for one that it drops unread; to set one up takes tens of milliseconds."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class Pass:
    """An iterator of a dataset, made when it is first asked for."""

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset

    @functools.cached_property
    def iterator(self) -> tf.data.Iterator:
        return iter(self._dataset)

    def __next__(self):
        return next(self.iterator)


class Passes(tf.data.Dataset):
    """The elements of a dataset, with a `Pass` for an iterator."""

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset
        super().__init__(dataset._variant_tensor)

    @property
    def element_spec(self):
        return self._dataset.element_spec

    def _inputs(self):
        return [self._dataset]

    def __iter__(self):
        return Pass(self._dataset)


def reading(function: Callable) -> Callable:
    """A function of an iterator, as one of a `Pass`, too."""

    def read(iterator: Any):
        is_pass = isinstance(iterator, Pass)
        return function(iterator.iterator if is_pass else iterator)

    return read


def beginning(reset: Callable) -> Callable:
    """What sets all metrics back as a model's `reset_metrics` does, in one call
    where one by one they cost milliseconds; called with those it has by then.
    """
    together = tf.function(lambda _: reset(), autograph=False)
    # No attribute that Keras' export would take for a function to serve.
    return lambda metrics: together(tuple(map(id, metrics)))
