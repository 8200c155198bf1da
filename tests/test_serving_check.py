import subprocess
import sys

import numpy as np
import tensorflow as tf
from small import small_vae

from vae_tf.serving import check


class CheckTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.path = self.create_tempdir().full_path + "/bundle"
        self.z = np.ones((1, 2), np.float32)

    def save(self, module, function):
        spec = tf.TensorSpec((None, 2), tf.float32, "z")
        traced = tf.function(function, [spec]).get_concrete_function()
        tf.saved_model.save(module, self.path, signatures={"decode": traced})

    def cases(self, output):
        return {"decode/1/input/z": self.z, "decode/1/output/image": output}

    def run_in_process(self, output):
        cases = self.path + ".npz"
        np.savez(cases, **self.cases(output))
        return subprocess.run(
            [sys.executable, check.__file__, self.path, cases],
            capture_output=True,
            text=True,
        )

    def test_accepts_a_good_bundle(self):
        module = tf.Module()
        module.weight = tf.Variable(tf.ones((2, 3)))
        self.save(module, lambda z: {"image": z @ module.weight})
        check.check(self.path, self.cases(self.z @ np.ones((2, 3))))
        result = self.run_in_process(self.z @ np.ones((2, 3)))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_refuses_other_numbers(self):
        self.save(tf.Module(), lambda z: {"image": 2 * z})
        with self.assertRaisesRegex(AssertionError, "decode/1: image"):
            check.check(self.path, self.cases(self.z))
        self.assertNotEqual(self.run_in_process(self.z).returncode, 0)

    def test_a_draw_at_the_edge_of_its_probability_may_flip(self):
        self.save(tf.Module(), lambda z: {"image": tf.tile(z, (1, 4))})
        bits = np.ones((1, 8))
        bits[0, 0] = 0
        check.check(self.path, self.cases(bits))
        bits[0, 1] = 0
        with self.assertRaisesRegex(AssertionError, "decode/1: image"):
            check.check(self.path, self.cases(bits))

    def test_refuses_other_signatures(self):
        self.save(tf.Module(), lambda z: {"image": z})
        cases = self.cases(self.z)
        cases |= {k.replace("decode", "encode"): v for k, v in cases.items()}
        with self.assertRaisesRegex(AssertionError, r"received \['decode'\]"):
            check.check(self.path, cases)

    def test_refuses_other_outputs(self):
        self.save(tf.Module(), lambda z: {"picture": z})
        with self.assertRaisesRegex(AssertionError, r"\['image'\], received"):
            check.check(self.path, self.cases(self.z))

    def test_refuses_the_obvious_way_of_saving_a_keras_model(self):
        # It loads in Python, and fails in TensorFlow Serving.
        vae = small_vae()
        image = vae.decoder(self.z).mean().numpy()
        module = tf.Module()
        module.vae = vae
        self.save(module, lambda z: {"image": vae.decoder(z).mean()})
        python = tf.saved_model.load(self.path).signatures["decode"]
        self.assertAllClose(python(z=tf.constant(self.z))["image"], image)
        with self.assertRaisesRegex(tf.errors.OpError, "Could not find var"):
            check.check(self.path, self.cases(image))
