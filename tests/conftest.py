"""What running `tf.test.TestCase` under pytest takes."""

from absl import flags

flags.FLAGS.mark_as_parsed()  # absl.testing asks them for a directory.


def pytest_collection_modifyitems(items):
    # Every tf.test.TestCase inherits this helper, which skips itself.
    items[:] = [item for item in items if item.name != "test_session"]
