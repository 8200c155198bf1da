"""What running `tf.test.TestCase` under pytest takes."""

import tensorflow as tf
from absl import flags

flags.FLAGS.mark_as_parsed()  # absl.testing asks them for a directory.


def pytest_collection_modifyitems(items):
    # Every tf.test.TestCase inherits this helper, which skips itself.
    items[:] = [item for item in items if item.name != "test_session"]


def _without_autotuning(iterate):
    """Iterators whose end waits for no thread: where a test drops one early,
    that of tf.data's autotuning held up the next tests for up to 80 s.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return lambda dataset: iterate(dataset.with_options(options))


tf.data.Dataset.__iter__ = _without_autotuning(tf.data.Dataset.__iter__)
