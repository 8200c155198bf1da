"""Several training steps in one compiled call: what `fit` runs where XLA
compiles the step.

Called once per step, XLA writes every weight and every slot of the optimizer to
new memory; in a loop that it compiles itself they stay in place, and nothing
returns to TensorFlow or to Python between two steps."""

from collections.abc import Callable

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
      images_of: batch of the iterator -> images `[B, ...]`.
      otherwise: the function that Keras makes, for iterators that cannot be
        read inside a graph, or that feed several devices.
    """
    steps = model.steps_per_execution

    @tf.function(jit_compile=True, reduce_retracing=True)
    def run(block, count):
        """Trains on the first `count` of the batches `[steps, B, ...]`."""

        def step(number):
            model.train_step(block[number])
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
            return images_of(optional.get_value())

        def rows(optional):
            return tf.cond(
                optional.has_value(),
                lambda: tf.shape(batch(optional))[0],
                lambda: -1,
            )

        first = iterator.get_next_as_optional()
        size = rows(first)

        # Batches of one size become a block, always of one shape, because XLA
        # compiles anew for each ...
        def collect(done, optional, block):
            block = block.write(done, batch(optional))
            return done + 1, following(done + 1), block

        spec = tf.function(batch).get_concrete_function(first)
        done, optional, block = tf.while_loop(
            lambda _, optional, __: (size >= 0) & (rows(optional) == size),
            collect,
            (
                0,
                first,
                tf.TensorArray(
                    spec.output_dtypes, steps, element_shape=spec.output_shapes
                ),
            ),
        )
        tf.cond(done > 0, lambda: run(block.stack(), done), lambda: None)

        # ... and others, such as the last one of a pass, are run one by one.
        def one(done, optional):
            model.train_step(batch(optional))
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
