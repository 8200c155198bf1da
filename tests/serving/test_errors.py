import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.serving import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and kind.__module__ == errors.__name__
]


class ErrorsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*KINDS)
    def test_one_word_catches_them_all(self, kind):
        self.assertTrue(issubclass(kind, errors.ServingError))
        self.assertTrue(kind.__doc__)
        # A request that nothing can answer is the caller's mistake; a server
        # that fails is not.
        self.assertEqual(
            issubclass(kind, vae_tf.UserError), kind is errors.InvalidRequest
        )
