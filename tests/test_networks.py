import numpy as np
import tensorflow as tf

import vae_tf


class MLPTest(tf.test.TestCase):
    def test_is_a_chain_of_affine_maps_and_nonlinearities(self):
        mlp = vae_tf.MLP(hidden_units=(5, 4), activation="tanh")
        x = np.random.default_rng(0).standard_normal((3, 2, 2, 1))
        features = mlp(tf.constant(x, tf.float32))
        expected = x.reshape(3, 4)
        for kernel, bias in zip(mlp.weights[::2], mlp.weights[1::2]):
            expected = np.tanh(expected @ kernel.numpy() + bias.numpy())
        self.assertAllClose(features, expected, 1e-5, 1e-5)

    def test_takes_any_depth(self):
        for hidden_units in [(3,), (3, 4, 5, 6)]:
            features = vae_tf.MLP(hidden_units)(tf.ones((2, 4, 4, 3)))
            self.assertEqual(features.shape, (2, hidden_units[-1]))
