import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from scipy import stats

from vae_tf import noise


class NoiseTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        ("normal", noise.standard_normal, "norm", 2, 1e-4),
        ("uniform", noise.uniform, "uniform", 4, 0),
    )
    def test_draws_have_their_distribution_compiled_or_not(
        self, draw, name, draws_of_a_word, tolerance
    ):
        def draws(seed):
            return draw((2, 3, 20_001), seed)

        seed = tf.constant([3, 4])
        eager = draws(seed).numpy()
        self.assertEqual((eager.shape, eager.dtype), ((2, 3, 20_001), "f4"))
        self.assertAllClose(
            tf.function(draws, jit_compile=True)(seed),
            eager,
            tolerance,
            tolerance,
        )
        self.assertGreater(stats.kstest(eager.ravel(), name).pvalue, 1e-3)
        # The draws of a word, rows and seeds have nothing to do with each
        # other: the standard deviation of a correlation is its number of draws
        # to the power of -1/2.
        parts = np.split(
            eager[..., :20_000].reshape(6, -1), draws_of_a_word, axis=1
        )
        others = [
            *parts[1:],
            np.roll(parts[0], 1, axis=0),
            draws([4, 3]).numpy().reshape(6, -1)[:, : parts[0].shape[1]],
        ]
        for other in others:
            correlation = np.corrcoef(parts[0].ravel(), other.ravel())[0, 1]
            self.assertLess(abs(correlation), 5 * other.size**-0.5)

    def test_the_bits_of_a_word_are_used_once(self):
        # The four draws of a word, [N, 4], by their 64 bits.
        parts = noise.uniform((5000, 4), [1, 2]).numpy()
        levels = np.floor(parts * 2**16).astype(int)[..., np.newaxis]
        bits = (levels >> np.arange(16) & 1).reshape(5000, 64)
        correlations = np.corrcoef(bits.T) - np.eye(64)
        self.assertLess(np.abs(correlations).max(), 6 * 5000**-0.5)

    def test_uniform_never_is_an_end_of_the_interval(self):
        draws = noise.uniform((2**18,), [1, 2], bits=8).numpy()
        self.assertAllEqual(np.unique(draws), (np.arange(256) + 0.5) / 256)
        draws = noise.uniform((2**22,), [1, 2], bits=23).numpy()
        self.assertAllInRange(draws, 2.0**-24, 1 - 2.0**-24)


class StratifiedTest(tf.test.TestCase):
    def test_each_part_has_one_draw(self):
        draws = noise.stratified_normal((50, 3), tf.constant([3, 4], tf.int64))
        parts = np.floor(50 * stats.norm.cdf(draws.numpy())).astype(int)
        for column in parts.T:
            self.assertAllEqual(np.sort(column), np.arange(50))
        self.assertNotAllEqual(parts[:, 0], parts[:, 1])

    def test_averages_are_right_and_vary_less(self):
        squares = [
            np.mean(
                noise.stratified_normal(
                    (100, 1), noise.key("local", seed, 2)
                ).numpy()
                ** 2
            )
            for seed in range(100)
        ]
        # Of independent draws, their standard deviation is (2 / 100)^1/2.
        self.assertLess(np.std(squares), 0.05)
        self.assertAllClose(np.mean(squares), 1, atol=4 * np.std(squares) / 10)

    def test_no_draw_is_infinite(self):
        draws = noise.stratified_normal((1, 9), tf.constant([1, 1], tf.int64))
        self.assertAllInRange(draws, -6.0, 6.0)
        np.testing.assert_array_less(
            np.abs(noise._normal(tf.constant(1 - noise.EDGE))), 6
        )


class KeyTest(tf.test.TestCase):
    def test_no_two_uses_share_draws(self):
        # Whatever the purpose, the seed and the number.
        keys = {
            tuple(noise.key(purpose, seed, number).numpy())
            for purpose in noise.PURPOSES
            for seed in (0, 1, 5, 7, 2**31 - 1, 2**40)
            for number in (0, 1, 5, 7, 2**31, 2**40)
        }
        self.assertLen(keys, len(noise.PURPOSES) * 6 * 6)
        draws = np.stack(
            [
                noise.standard_normal((1, 400), noise.key(purpose, 5, 5))[0]
                for purpose in noise.PURPOSES
            ]
        )
        apart = np.corrcoef(draws) - np.eye(len(draws))
        self.assertAllInRange(apart, -0.25, 0.25)  # 5 / sqrt(400)

    def test_takes_what_seeds_are_made_of(self):
        expected = noise.key("elbo", 3, 4)
        for seed in (np.int32(3), np.int64(3), tf.constant(3, tf.int64)):
            self.assertAllEqual(noise.key("elbo", seed, 4), expected)
        self.assertNotAllEqual(noise.key("elbo", -3), noise.key("elbo", 3))

    def test_a_seed_for_tensorflow_probability_follows_the_key(self):
        one = noise.for_tfp(noise.key("latent", 1))
        self.assertEqual((one.dtype, one.shape), (tf.int32, (2,)))
        self.assertNotAllEqual(one, noise.for_tfp(noise.key("latent", 2)))
