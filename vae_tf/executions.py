"""Several training steps in one compiled call: what `fit` runs where XLA
compiles the step.

Called once per step, XLA writes every weight and every slot of the optimizer to
new memory; in a loop that it compiles itself they stay in place, and nothing
returns to TensorFlow or to Python between two steps."""

import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# On a CPU, XLA runs these slower than TensorFlow does (in a compiled loop,
# several times slower), as it does products of other numbers than float32.
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
# What has no form in XLA: augmentation and look-up tables.
NOT_IN_XLA = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random")
    or name in ("Hashing", "IntegerLookup", "StringLookup", "TextVectorization")
)
NUMBERS = (tf.float32, tf.float64, tf.uint8, tf.int32, tf.int64, tf.bool)


class InStep(NamedTuple):
    """How a compiled step makes the images of a dataset that has this as its
    attribute `in_step`: images that are rows of a table in memory then cross no
    queue, and of several devices none makes the images of another.

    `elements.map(images_of)` is the dataset itself.
    """

    elements: tf.data.Dataset  # of what XLA takes: no strings
    # Element, or a device's rows of it -> images [B, ...], or a dict with them.
    images_of: Callable
    # -> The elements of one pass, which may be set up sooner than all of them.
    begin: Callable[[], tf.data.Dataset]


# Whether the images of the step that is being traced were made in it.
_made: contextvars.ContextVar = contextvars.ContextVar("made", default=False)
# Of the images that a device is about to be given, where that is known.
_known_place: contextvars.ContextVar = contextvars.ContextVar(
    "place", default=None
)


class Place(NamedTuple):
    """Where the images of a device lie in the batch of all devices."""

    first: tf.Tensor | int  # number of the first one
    rows: tf.Tensor | int  # how many they are
    total: tf.Tensor | int  # how many those of all devices are
    devices: int
    # How many images all devices have had in this pass before, where known.
    before: tf.Tensor | None = None

    @property
    def share(self) -> tf.Tensor | float:
        """Of an average over all devices, what an average over this one's
        images contributes: optimizers sum gradients over devices.
        """
        if self.devices == 1:
            return 1.0
        return tf.cast(self.rows, tf.float32) / tf.cast(self.total, tf.float32)

    def of(self, everything: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """This device's part of what has `total` rows in an axis."""
        if self.devices == 1:
            return everything
        rows = slice(self.first, self.first + self.rows)
        return everything[(slice(None),) * axis + (rows,)]

    def seen(self, count: tf.Tensor) -> tf.Tensor:
        """How many images all devices have had in this pass before, of which
        this one has had `count`.
        """
        if self.devices == 1:
            return count
        if self.before is not None:
            return self.before
        context = tf.distribute.get_replica_context()
        # Not the variable, which would be reduced in its own way.
        return context.all_reduce("sum", tf.convert_to_tensor(count) + 0)

    def everywhere(self, average: tf.Tensor) -> tf.Tensor:
        """An average over this device's images -> over those of all devices."""
        if self.devices == 1:
            return average
        context = tf.distribute.get_replica_context()
        # A device without images has an average that is no number.
        part = tf.math.multiply_no_nan(average, self.share)
        return context.all_reduce("sum", part)


def place_of(images: tf.Tensor) -> Place:
    """The place of images `[B, ...]` among those that other devices have of
    this batch.
    """
    rows, context = tf.shape(images)[0], tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return Place(0, rows, rows, 1)
    devices, known = context.num_replicas_in_sync, _known_place.get()
    if known is not None:
        return known
    mine = tf.one_hot(context.replica_id_in_sync_group, devices, dtype=tf.int32)
    counts = context.all_reduce("sum", mine * rows)
    first = tf.cumsum(counts, exclusive=True)
    return Place(
        tf.reduce_sum(first * mine), rows, tf.reduce_sum(counts), devices
    )


def rows_of(parts: Any) -> list:
    """Of a nest, what has an axis."""
    return [part for part in tf.nest.flatten(parts) if part.shape.rank != 0]


def step_on(step: Callable, images_of: Callable | None, element: Any) -> Any:
    """A step on the images that `images_of` makes of an element, or on the
    element itself.
    """
    token = _made.set(images_of is not None)
    try:
        return step(images_of(element) if images_of else element)
    finally:
        _made.reset(token)


def images_are_made() -> bool:
    """Whether the images of a step are made in it from what has been looked at:
    nothing need be counted of them.
    """
    return _made.get()


def logs(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What a step returns: scalars; of several workers with an axis, over which
    Keras averages.
    """
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return values
    return {name: value[tf.newaxis] for name, value in values.items()}


def suit_xla(model: keras.Model) -> bool:
    """Whether XLA compiles the steps of a model: of one device, whose layers
    suit it.
    """
    several = model.distribute_strategy.num_replicas_in_sync > 1
    return not several and layers_suit_xla(model)


def layers_suit_xla(model: keras.Model) -> bool:
    """Whether XLA on a CPU runs the model's layers, and at least as fast as
    TensorFlow does.
    """
    return not any(
        isinstance(layer, (*CONVOLUTIONS, *NOT_IN_XLA))
        or layer.compute_dtype != "float32"
        for layer in model._flatten_layers()
    )


def compiled_loop(
    model: keras.Model,
    own: bool,
    read: Callable,
    step: Callable,
    otherwise: Callable,
    images_of: Callable | None,
) -> Callable:
    """What Keras calls with an iterator over batches, once for every
    `steps_per_execution` steps; returns the metrics, or raises StopIteration
    where no batch is left.

    Args:
      model: compiled with `jit_compile` and `steps_per_execution`.
      own: whether the step is a subclass's own, whose logs may be no metrics.
      read: what of a batch the step is given.
      step: its `train_step` or `test_step`, which creates no variable.
      otherwise: the function that Keras makes, for iterators that cannot be
        read inside a graph, that feed several devices, or give what XLA cannot
        read.
      images_of: what the iterator gives -> images `[B, ...]`, inside the step;
        None where it gives batches.
    """
    steps = model.steps_per_execution
    taken = (lambda element: element) if images_of else read

    @tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
    def run(block, count, logs):
        """A step on each of the first `count` batches `[steps, B, ...]`."""

        def one(number, logs):
            batch = tf.nest.map_structure(lambda x: x[number], block)
            new = taken_step(batch)
            return number + 1, new if own else logs

        _, logs = tf.while_loop(
            lambda number, _: number < count, one, (0, logs)
        )
        return logs

    specs: list = []  # of the last iterator, and of what is taken from it

    def spec_of(iterator):
        if not specs or specs[0] != iterator.element_spec:
            given = iterator.element_spec
            specs[:] = given, _outputs_of(taken, given)
        return specs[1]

    @tf.function(reduce_retracing=True, autograph=False)
    def taken_step(batch):
        return step_on(step, images_of, batch)

    @tf.function(reduce_retracing=True, autograph=False)
    def execute(iterator):
        def following(done):
            return tf.cond(
                done < steps,
                iterator.get_next_as_optional,
                lambda: tf.experimental.Optional.empty(iterator.element_spec),
            )

        def batch(optional):
            return taken(optional.get_value())

        def sizes(optional):
            return tf.cond(
                optional.has_value(),
                lambda: [
                    tf.shape(part)[0] for part in rows_of(batch(optional))
                ],
                lambda: [-1 for _ in rows_of(spec)],
            )

        spec = spec_of(iterator)
        # What a step of a subclass gives, which no metric may remember.
        none = _zeros_like(taken_step, spec) if own else tf.zeros(())
        first = iterator.get_next_as_optional()
        expected = sizes(first)

        # Batches of one size become a block, always of one shape, because XLA
        # compiles anew for each ...
        def fits(_, optional, __):
            same = tf.equal(sizes(optional), expected)
            return optional.has_value() & tf.reduce_all(same)

        def collect(done, optional, block):
            block = tf.nest.map_structure(
                lambda whole, part: whole.write(done, part),
                block,
                batch(optional),
            )
            return done + 1, following(done + 1), block

        block = tf.nest.map_structure(
            lambda part: tf.TensorArray(
                part.dtype, steps, element_shape=part.shape
            ),
            spec,
        )
        done, optional, block = tf.while_loop(fits, collect, (0, first, block))

        def loop():
            stacked = tf.nest.map_structure(lambda part: part.stack(), block)
            return run(stacked, done, none)

        logs = tf.cond(done > 0, loop, lambda: none)

        # ... and others, such as the last one of a pass, are run one by one.
        def one(done, optional, logs):
            new = taken_step(batch(optional))
            return done + 1, following(done + 1), new if own else logs

        done, _, logs = tf.while_loop(
            lambda _, optional, __: optional.has_value(),
            one,
            (done, optional, logs),
        )
        return done, logs if own else model.get_metrics_result()

    def readable(iterator):
        """Whether XLA can read what the step takes."""
        return all(
            isinstance(spec, tf.TensorSpec) and spec.dtype in NUMBERS
            for spec in tf.nest.flatten(spec_of(iterator))
        )

    def function(iterator):
        if not (isinstance(iterator, tf.data.Iterator) and readable(iterator)):
            return otherwise(iterator)
        done, metrics = execute(iterator)
        if not done:
            raise StopIteration
        return metrics

    return function


def shared_loop(
    model: keras.Model,
    step: Callable,
    otherwise: Callable,
    images_of: Callable | None,
) -> Callable:
    """As `compiled_loop`, for several devices: each runs the step on its rows
    of a batch, and waits for the others where they add up what they have.

    Args:
      model: compiled with `steps_per_execution`, under a strategy.
      step: `train_step` or `test_step`, whose logs are the model's metrics.
      otherwise: the function that Keras makes, for what is no dataset.
      images_of: what a dataset gives -> a batch; None where that is one.
    """
    strategy, steps = model.distribute_strategy, model.steps_per_execution
    devices = strategy.num_replicas_in_sync

    def of_shared(before, element):
        context = tf.distribute.get_replica_context()
        total = tf.shape(rows_of(element)[0])[0]
        number = context.replica_id_in_sync_group
        first, end = total * number // devices, total * (number + 1) // devices
        rows = tf.nest.map_structure(
            lambda part: part[first:end] if part.shape.rank else part, element
        )
        place = Place(first, end - first, total, devices, before)
        token = _known_place.set(place)
        try:
            step_on(step, images_of, rows)
        finally:
            _known_place.reset(token)

    def of_cut(batch):
        # Its own memory: what Keras cuts in parts may lie in the user's arrays,
        # which an operation in place would write.
        own = tf.nest.map_structure(
            lambda part: (
                tf.raw_ops.DeepCopy(x=part)
                if isinstance(part, tf.Tensor) and part.dtype.is_floating
                else part
            ),
            batch,
        )
        step(own)

    @tf.function(reduce_retracing=True, autograph=False)
    def execute(iterator):
        def following(done, _):
            optional = iterator.get_next_as_optional()
            more = optional.has_value()

            def run():
                if isinstance(iterator, tf.data.Iterator):
                    strategy.run(of_shared, optional.get_value())
                else:  # Keras has cut each batch in parts.
                    strategy.run(of_cut, (optional.get_value(),))
                return done + 1

            return tf.cond(more, run, lambda: done), more

        done, _ = tf.while_loop(
            lambda done, more: more & (done < steps), following, (0, True)
        )
        return done, model.get_metrics_result()

    def function(iterator):
        if not isinstance(
            iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)
        ):
            return otherwise(iterator)
        done, metrics = execute(iterator)
        if not done:
            raise StopIteration
        return metrics

    return function


def _outputs_of(function: Callable, spec: Any) -> Any:
    """The specs of what a function makes of inputs of `spec`."""
    return tf.nest.map_structure(
        lambda output: (
            tf.TensorSpec(output.shape, output.dtype)
            if isinstance(output, (tf.Tensor, tf.TensorSpec))
            else output
        ),
        tf.function(function, autograph=False)
        .get_concrete_function(spec)
        .structured_outputs,
    )


def _zeros_like(step: Callable, spec: Any) -> Any:
    return tf.nest.map_structure(
        lambda output: tf.zeros(output.shape, output.dtype),
        _outputs_of(step, spec),
    )
