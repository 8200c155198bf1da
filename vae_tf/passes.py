"""A pass over a dataset that is set up where it is read, and whose images are
made in the step.

Keras asks a dataset for an iterator when a pass begins, and again at its end,
for one that it drops unread; to set one up takes tens of milliseconds."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vae_tf.executions import rows_of

KEPT = 4  # compiled functions, of datasets that are read in turns


class Pass:
    """An iterator of the dataset that `begin` gives, made when it is first
    asked for; a step makes images of what it gives by `images_of`, None where
    it gives them.
    """

    def __init__(self, begin: Callable, images_of: Callable | None):
        self._begin, self.images_of = begin, images_of

    @functools.cached_property
    def iterator(self) -> tf.data.Iterator:
        return iter(self._begin())

    def __next__(self):
        return next(self.iterator)


class Passes(tf.data.Dataset):
    """The elements of a dataset, with a `Pass` for an iterator; see
    `executions.InStep`.
    """

    def __init__(
        self, dataset: tf.data.Dataset, images_of: Callable, begin: Callable
    ):
        self._dataset, self._images_of, self._begin = dataset, images_of, begin
        super().__init__(dataset._variant_tensor)

    @property
    def element_spec(self):
        return self._dataset.element_spec

    def _inputs(self):
        return [self._dataset]

    def __iter__(self):
        return Pass(self._begin, self._images_of)


class Shared(tf.data.Dataset, tf.distribute.DistributedDataset):
    """The whole of a dataset for each worker, with how many rows came before;
    each device then takes its own, and knows their place without a question.

    Keras, which would cut each batch in parts, takes it for distributed, and
    leaves it as it is.
    """

    def __init__(self, dataset: tf.data.Dataset, images_of: Callable | None):
        def counted(before, element):
            rows = tf.shape(rows_of(element)[0])[0]
            return before + rows, (before, element)

        self._whole, self._images_of = dataset.scan(0, counted), images_of
        super().__init__(self._whole._variant_tensor)

    @staticmethod
    def takes(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy):
        """Whether its elements are tensors, of which some have rows, and the
        same ones in all workers: a `shuffle` of the user's may not be, which
        TensorFlow knows how to share out.
        """
        specs = tf.nest.flatten(dataset.element_spec)
        same = getattr(dataset, "same_in_all_workers", False)
        alone = strategy.cluster_resolver is None
        return bool((same or alone) and rows_of(specs)) and all(
            isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None
            for spec in specs
        )

    @property
    def element_spec(self):
        return self._whole.element_spec

    def _inputs(self):
        return [self._whole]

    def __iter__(self):
        return Pass(lambda: self._whole, self._images_of)


def set_up_once(make: Callable, spec: Any) -> Callable[[], tf.data.Dataset]:
    """What `make` does, whose dataset's functions are set up at the first call
    alone: by `flat_map`, each iterator would set them up, in some 20 ms.

    Args:
      make: -> a dataset.
      spec: of its elements.
    """

    @tf.function(autograph=False)
    def made():
        return tf.data.experimental.to_variant(make())

    return lambda: tf.data.experimental.from_variant(made(), spec)


def reading(function_of: Callable) -> Callable:
    """A function of an iterator or of a `Pass`.

    Args:
      function_of: how the step makes images of what an iterator gives, None
        where that has them -> the function of such an iterator.
    """
    function_of = functools.lru_cache(KEPT)(function_of)

    def read(iterator: Any):
        if isinstance(iterator, Pass):
            return function_of(iterator.images_of)(iterator.iterator)
        return function_of(None)(iterator)

    return read
