"""The scorer that compares contestants, and what ours gives it."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import random_bits, small_vae

import vae_tf
from benchmarks.peers import ours, scoring


class ScoringTest(parameterized.TestCase, tf.test.TestCase):
    def score(self, images, **arrays):
        path = self.create_tempdir().full_path + "/arrays.npz"
        np.savez(path, **arrays)
        return scoring.log_p(path, images)

    def test_draws_of_p_give_p_exactly(self):
        # With a decoder that ignores z, and q = p, every weight is p(x).
        generator = np.random.default_rng(0)
        loc, scale = np.full((3, 2), 1.5), np.full((3, 2), 0.5)
        z = 1.5 + 0.5 * generator.standard_normal((7, 4, 2))
        log_q = -0.5 * (((z - 1.5) / 0.5) ** 2).sum(-1)
        log_q -= np.log(2 * np.pi) + 2 * np.log(0.5)
        logits = np.array([0.3, -2.0, 1.0])
        images = generator.integers(0, 2, (4, 3))
        p = 1 / (1 + np.exp(-logits))
        expected = np.log(np.where(images, p, 1 - p)).sum(-1)
        found = self.score(
            images,
            kernel_0=np.zeros((2, 5)),
            bias_0=np.ones(5),
            kernel_1=np.zeros((5, 3)),
            bias_1=logits,
            z=z,
            log_q=log_q,
            prior_loc=loc,
            prior_scale=scale,
        )
        self.assertAllClose(found, expected, 1e-6, 1e-6)

    @parameterized.parameters(
        ("mean_field", "standard_normal"),
        ("iaf", "standard_normal"),
        ("mean_field", vae_tf.VampPrior(2, 3)),
    )
    def test_agrees_with_our_own_estimate(self, posterior, prior):
        vae = small_vae(posterior=posterior, prior=prior)
        images = random_bits(5)
        found = self.score(np.array(images), **ours.arrays(vae, images, 5000))
        expected = vae_tf.log_marginal_likelihood(vae, images, 5000, seed=1)
        self.assertAllClose(found, expected, atol=0.1)
        # Which a prior or density that is left out would not be.
        self.assertGreater(np.std(expected), 0.1)


if __name__ == "__main__":
    tf.test.main()
