import numpy as np
import scipy.stats
import tensorflow as tf

import vae_tf


class StandardNormalTest(tf.test.TestCase):
    def test_log_prob(self):
        z = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")
        p = vae_tf.StandardNormal(3).distribution()
        self.assertEqual((p.batch_shape, p.event_shape), ([], [3]))
        expected = scipy.stats.norm.logpdf(z).sum(-1)
        self.assertAllClose(p.log_prob(z), expected, 1e-5, 1e-5)

    def test_draws(self):
        draws = vae_tf.StandardNormal(2).distribution().sample(50_000, seed=1)
        self.assertAllClose(np.mean(draws, 0), [0, 0], atol=5 / 50_000**0.5)
        self.assertAllClose(np.cov(draws.numpy().T), np.eye(2), atol=0.04)
