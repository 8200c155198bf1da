import numpy as np
import tensorflow as tf

from vae_tf.evaluation import pareto
from vae_tf.evaluation.errors_of_means import jackknife
from vae_tf.evaluation.estimates import interval, kept, of_moments
from vae_tf.evaluation.moments import Moments


def moments(log_weights):
    """Of log weights `[K, B]`, with ELBO their mean and KL 2."""
    ordered = np.sort(log_weights, axis=0)[::-1]
    return Moments(
        reconstruction=log_weights.mean(0) + 2,
        kl=np.full(log_weights.shape[1], 2.0),
        log_sum=np.logaddexp.reduce(log_weights),
        log_sum_of_squares=np.logaddexp.reduce(2 * log_weights),
        largest=ordered[: kept(len(log_weights))],
        bounds=log_weights[:3],
    )


class EstimatesTest(tf.test.TestCase):
    def test_equal_weights_leave_no_error(self):
        found = of_moments(moments(np.full((100, 2), -90.0)), 100)
        for name, value in {
            "elbo": -90,
            "log_marginal_likelihood": -90,
            "variance": 0,
            "bias": 0,
            "effective_sample_size": 100,
            "num_samples": 100,
        }.items():
            self.assertAllClose(
                getattr(found, name), [value] * 2, atol=1e-6, msg=name
            )
        self.assertAllClose(interval(found), np.full((2, 2), -90.0))

    def test_is_what_the_weights_say(self):
        log_weights = np.random.default_rng(0).normal(-90, 1, (1000, 3))
        found = of_moments(moments(log_weights), 1000)
        weights = np.exp(log_weights + 90)
        self.assertAllClose(
            found.log_marginal_likelihood, np.log(weights.mean(0)) - 90
        )
        self.assertAllClose(found.elbo, found.reconstruction - found.kl)
        self.assertAllClose(found.elbo, log_weights.mean(0))
        self.assertAllClose(
            found.effective_sample_size,
            weights.sum(0) ** 2 / (weights**2).sum(0),
        )
        self.assertEqual(found.bounds.shape, (3, 3))
        self.assertAllEqual(found.bounds, log_weights[:3].T)
        # Of the few weights kept as of all of them.
        every = moments(log_weights)._replace(
            largest=np.sort(log_weights, axis=0)[::-1]
        )
        variance, bias = jackknife(
            every.largest.T, every.log_sum, every.log_sum_of_squares, 1000
        )
        self.assertAllClose(found.variance, variance, 1e-4)
        self.assertAllClose(found.bias, bias, 1e-2)
        self.assertAllClose(found.pareto_k, pareto.shape(every.largest.T, 1000))
        # About the estimate less its bias, 1.96 standard errors each way.
        lower, upper = interval(found)
        self.assertAllClose(
            (lower + upper) / 2, found.log_marginal_likelihood - found.bias
        )
        self.assertAllClose((upper - lower) / 3.92, variance**0.5, 1e-3)

    def test_keeps_what_the_tail_and_the_jackknife_need(self):
        self.assertEqual([kept(k) for k in (1, 50, 64, 100)], [1, 50, 64, 64])
        self.assertEqual(kept(128_000), pareto.tail_length(128_000) + 1)
