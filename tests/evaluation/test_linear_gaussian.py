import numpy as np
import tensorflow as tf
from scipy import stats

import vae_tf
from vae_tf.evaluation.linear_gaussian import linear_gaussian


class LinearGaussianTest(tf.test.TestCase):
    def test_log_p_is_that_of_the_normal_with_all_of_its_covariance(self):
        generator = np.random.default_rng(1)
        weights = generator.standard_normal((7, 3))
        offset, x = generator.standard_normal((2, 7))
        found = linear_gaussian(x[np.newaxis], weights, offset, 0.3)
        covariance = weights @ weights.T + 0.09 * np.eye(7)
        expected = stats.multivariate_normal(offset, covariance).logpdf(x)
        self.assertAllClose(found.log_marginal_likelihood, [expected], 1e-10)

    def test_bayes(self):
        # p(x) p(z|x) = p(x|z) p(z) at any z.
        generator = np.random.default_rng(2)
        weights = generator.standard_normal((5, 2))
        offset, x = generator.standard_normal((2, 5))
        found = linear_gaussian(x[np.newaxis], weights, offset, 0.7)
        posterior = stats.multivariate_normal(found.loc[0], found.covariance)
        for z in generator.standard_normal((4, 2)):
            self.assertAllClose(
                found.log_marginal_likelihood[0] + posterior.logpdf(z),
                stats.norm(weights @ z + offset, 0.7).logpdf(x).sum()
                + stats.norm.logpdf(z).sum(),
                1e-10,
            )

    def test_refuses(self):
        with self.assertRaisesRegex(vae_tf.UserError, "scale: .* > 0, .* 0"):
            linear_gaussian(np.zeros((1, 2)), np.ones((2, 1)), 0, 0)
