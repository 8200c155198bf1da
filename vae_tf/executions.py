"""Several training steps in one compiled call: what `fit` runs where XLA
compiles the step.

Called once per step, XLA writes every weight and every slot of the optimizer to
new memory; in a loop that it compiles itself they stay in place, and nothing
returns to TensorFlow or to Python between two steps."""

from collections.abc import Callable
from typing import NamedTuple

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


class InStep(NamedTuple):
    """How a compiled step makes the images of a dataset that has this as its
    attribute `in_step`: images that are rows of a table in memory then cross no
    queue.

    `elements.map(images_of)` is the dataset itself.
    """

    elements: tf.data.Dataset  # of what XLA takes: no strings
    images_of: Callable  # element -> images [B, ...]


def suit_xla(model: keras.Model) -> bool:
    """Whether XLA on a CPU runs the model's layers at least as fast as
    TensorFlow does.
    """
    return not any(
        isinstance(layer, CONVOLUTIONS) or layer.compute_dtype != "float32"
        for layer in model._flatten_layers()
    )


def compiled_loop(
    model: keras.Model, images_of: Callable, otherwise: Callable
) -> Callable:
    """What Keras calls with an iterator over batches, once for every
    `steps_per_execution` steps; returns the metrics, or raises StopIteration
    where no batch is left.

    Args:
      model: compiled with `jit_compile` and `steps_per_execution`; its
        `train_step` takes images and creates no variable.
      images_of: batch of the iterator, without labels -> images `[B, ...]`,
        inside the step.
      otherwise: the function that Keras makes, for iterators that cannot be
        read inside a graph, or that feed several devices.
    """
    steps = model.steps_per_execution

    @tf.function(jit_compile=True, reduce_retracing=True)
    def run(block, count):
        """Trains on the first `count` of the batches `[steps, B, ...]`."""

        def step(number):
            batch = tf.nest.map_structure(lambda x: x[number], block)
            model.train_step(images_of(batch))
            return number + 1

        tf.while_loop(lambda number: number < count, step, [0])

    @tf.function(reduce_retracing=True)
    def execute(iterator):
        def following(done):
            return tf.cond(
                done < steps,
                iterator.get_next_as_optional,
                lambda: tf.experimental.Optional.empty(iterator.element_spec),
            )

        def batch(optional):
            return keras.utils.unpack_x_y_sample_weight(optional.get_value())[0]

        def sizes(optional):
            return tf.cond(
                optional.has_value(),
                lambda: [
                    tf.shape(part)[0]
                    for part in tf.nest.flatten(batch(optional))
                ],
                lambda: [-1 for _ in tf.nest.flatten(spec)],
            )

        spec, _, _ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
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
            run(tf.nest.map_structure(lambda part: part.stack(), block), done)

        tf.cond(done > 0, loop, lambda: None)

        # ... and others, such as the last one of a pass, are run one by one.
        def one(done, optional):
            model.train_step(images_of(batch(optional)))
            return done + 1, following(done + 1)

        done, _ = tf.while_loop(
            lambda _, optional: optional.has_value(), one, (done, optional)
        )
        return done, model.get_metrics_result()

    def function(iterator):
        if not isinstance(iterator, tf.data.Iterator):
            return otherwise(iterator)
        done, metrics = execute(iterator)
        if not done:
            raise StopIteration
        return metrics

    return function
