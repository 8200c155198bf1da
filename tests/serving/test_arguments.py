import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.serving import arguments
from vae_tf.serving.errors import InvalidRequest


class ArgumentsTest(parameterized.TestCase, tf.test.TestCase):
    def test_what_fits_comes_in_the_model_s_dtype(self):
        self.assertEqual(arguments.latents([[1, -2]]).dtype, np.float32)
        self.assertEqual(arguments.pixels([[[[1]]]]).dtype, np.float32)
        for seed in (2**63 - 1, -(2**63)):
            seeds = arguments.seeds([seed])
            self.assertEqual((seeds.dtype, seeds[0]), (np.int64, seed))

    @parameterized.named_parameters(
        ("nan", "latents", [[np.nan]], "z: expected finite .*received nan"),
        ("beyond_float32", "latents", [[1e39]], "received inf"),
        ("complex", "latents", [[1j]], "received .*complex128"),
        ("scalar", "latents", 1.0, r"at least one row of them, received \[\]"),
        ("no_rows", "seeds", np.zeros(0, int), r"received \[0\] of int64"),
        ("ragged", "pixels", [[1.0], [1.0, 0.0]], "rows of several shapes"),
        ("above_one", "pixels", [[[[0.5], [1.5]]]], r"\[0, 1\].*received 1.5"),
        ("a_float", "seeds", [1.0], "integers .* received .* float64"),
        ("a_bool", "seeds", [True], "integers .* received .* bool"),
        ("one_file", "files", b"PNG", "list of the contents .* received bytes"),
        ("no_files", "files", [], "received list"),
        ("names", "files", ["a.png"], "received one of str"),
        ("65_bits", "seeds", np.array([2**63], np.uint64), "received 92233"),
    )
    def test_refuses(self, kind, value, message):
        with self.assertRaisesRegex(InvalidRequest, message):
            getattr(arguments, kind)(value)

    def test_files_keep_their_last_zeros(self):
        files = arguments.files([b"one\0", b"another\0\0"])
        self.assertEqual(files.dtype, object)
        self.assertEqual(list(files), [b"one\0", b"another\0\0"])

    def test_a_shape_is_written_as_in_the_docs(self):
        self.assertEqual(arguments.written("N", 28, 28, 1), "[N, 28, 28, 1]")
