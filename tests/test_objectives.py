import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized
from small import grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import objectives


def normal_noise(*shape, seed=0):
    return tf.random.stateless_normal(shape, seed=[seed, 1])


def drawn(q, prior, noise, log_likelihood=None, **kwargs):
    """Draws of a model whose log-likelihood is a function of z, else 0."""
    none = lambda z: tf.zeros(tf.shape(z)[:-1])  # noqa: E731
    return objectives.draw(q, prior, noise, log_likelihood or none, **kwargs)


class KLDivergenceTest(tf.test.TestCase):
    loc = np.array([[0.3, -1.2], [0.0, 0.0]], np.float32)
    scale = np.array([[0.5, 1.7], [1.0, 1.0]], np.float32)
    prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))

    def test_closed_form(self):
        q = tfd.MultivariateNormalDiag(self.loc, self.scale)
        draws = drawn(q, self.prior, normal_noise(1, 2, 2))
        kl = objectives.kl_divergence(draws)
        variance = self.scale**2
        expected = 0.5 * (self.loc**2 + variance - 1 - np.log(variance)).sum(-1)
        self.assertAllClose(kl, expected, 1e-6, 1e-6)
        self.assertGreater(kl[0], 0)
        self.assertEqual(kl[1], 0)  # q is the prior

    def test_agrees_with_monte_carlo_in_value_and_gradient(self):
        count = 60_000
        loc, scale = tf.Variable(self.loc[:1]), tf.Variable(self.scale[:1])
        values, gradients = [], []
        for analytic in (True, False):
            with tf.GradientTape() as tape:
                q = tfd.MultivariateNormalDiag(loc, scale)
                draws = drawn(q, self.prior, normal_noise(count, 1, 2))
                ratio = draws.log_q - draws.log_prior
                if analytic:
                    kl = objectives.kl_divergence(draws)
                else:
                    kl = tf.reduce_mean(ratio, axis=0)
            values.append(kl)
            gradients.append(tape.gradient(kl, [loc, scale]))
        error = 4 * np.std(ratio) / math.sqrt(count)
        self.assertLess(error, 0.05)
        self.assertAllClose(values[0], values[1], atol=error)
        self.assertAllClose(gradients[0], gradients[1], atol=0.05)

    def test_is_the_average_over_samples_without_a_closed_form(self):
        prior = tfd.Independent(tfd.Laplace(tf.zeros(2), 1.0), 1)
        q = tfd.MultivariateNormalDiag(self.loc, self.scale)
        draws = drawn(q, prior, normal_noise(5, 2, 2))
        kl = objectives.kl_divergence(draws)
        ratio = q.log_prob(draws.z) - prior.log_prob(draws.z)
        self.assertAllClose(kl, np.mean(ratio, 0))


class LinearGaussianTest(parameterized.TestCase, tf.test.TestCase):
    """z ~ N(0, I), x|z ~ N(Wz, s^2 I), where log p(x) and p(z|x) are known."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(0)
        self.weight = generator.standard_normal((5, 2)).astype(np.float32)
        self.noise_scale = 0.7
        self.x = generator.standard_normal((1, 5)).astype(np.float32)
        self.prior = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
        covariance = self.weight @ self.weight.T + self.noise_scale**2 * np.eye(
            5
        )
        self.log_p = scipy.stats.multivariate_normal(
            np.zeros(5), covariance
        ).logpdf(self.x[0])
        precision = (
            np.eye(2) + self.weight.T @ self.weight / self.noise_scale**2
        )
        self.posterior_covariance = np.linalg.inv(precision)
        self.posterior_loc = (
            self.posterior_covariance
            @ self.weight.T
            @ self.x[0]
            / self.noise_scale**2
        )

    def likelihood(self, z):
        loc = tf.linalg.matvec(self.weight, z)
        scale = tf.fill([5], self.noise_scale)
        return tfd.MultivariateNormalDiag(loc, scale)

    def draws(self, q, noise, **kwargs):
        return drawn(
            q,
            self.prior,
            noise,
            lambda z: self.likelihood(z).log_prob(self.x),
            **kwargs,
        )

    def exact_posterior(self):
        return tfd.MultivariateNormalTriL(
            [tf.constant(self.posterior_loc, tf.float32)],
            [
                tf.constant(
                    np.linalg.cholesky(self.posterior_covariance), tf.float32
                )
            ],
        )

    def test_at_the_exact_posterior_every_weight_is_the_evidence(self):
        q = self.exact_posterior()
        log_weights = self.draws(q, normal_noise(50, 1, 2)).log_weights
        self.assertAllClose(
            log_weights, tf.fill((50, 1), self.log_p), 1e-4, 1e-4
        )

    def test_expected_elbo_lies_below_by_the_divergence(
        self,
    ):
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        draws = self.draws(q, normal_noise(400_000, 1, 2))
        terms = objectives.elbo(draws)
        gap = self.log_p - terms.elbo
        divergence = tfd.kl_divergence(q, self.exact_posterior())
        error = 4 * np.std(draws.log_likelihood) / math.sqrt(400_000)
        self.assertLess(error, 0.05)
        self.assertAllClose(gap, divergence, atol=error)
        self.assertGreater(gap[0], 0)

    def test_both_forms_of_the_elbo_agree(self):
        # E[log p(x,z) - log q(z|x)] = E[log p(x|z)] - KL(q || p)
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        draws = self.draws(q, normal_noise(100_000, 1, 2))
        terms, log_weights = objectives.elbo(draws), draws.log_weights
        error = 4 * np.std(log_weights) / math.sqrt(100_000)
        self.assertAllClose(
            terms.elbo, tf.reduce_mean(log_weights, 0), atol=error
        )
        self.assertAllClose(terms.elbo, terms.reconstruction - terms.kl)

    def test_importance_weighted_bound_rises_to_the_evidence(self):
        q = tfd.MultivariateNormalDiag([[0.4, -0.3]], [[0.6, 0.5]])
        log_weights = self.draws(q, normal_noise(2**16, 1, 2)).log_weights
        bounds = []
        for k in (1, 2, 8, 64, 1024):
            grouped = tf.reshape(log_weights, (k, -1))
            bounds.append(
                np.mean(objectives.importance_weighted_bound(grouped))
            )
        self.assertAllEqual(bounds, sorted(bounds))
        self.assertGreater(bounds[1] - bounds[0], 0.01)
        self.assertLess(bounds[0], self.log_p)
        self.assertAllClose(bounds[-1], self.log_p, atol=0.02)

    def test_minibatches_of_data_are_unbiased(self):
        # Only local latents: the data's ELBO is a sum over datapoints.
        x = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
        loc, scale = tf.zeros((7, 2)), tf.ones((7, 2))
        noise = normal_noise(3, 7, 2)

        def elbo(rows):
            q = tfd.MultivariateNormalDiag(loc[rows], scale[rows])
            return objectives.elbo(
                drawn(
                    q,
                    self.prior,
                    noise[:, rows],
                    lambda z: self.likelihood(z).log_prob(x[rows]),
                )
            ).elbo

        every = elbo(slice(None))
        self.assertEqual(every.shape, (7,))
        parts = [elbo(slice(0, 4)), elbo(slice(4, 7))]
        self.assertAllClose(tf.concat(parts, 0), every, 1e-5, 1e-5)
        # Each batch, drawn as often as it has rows, estimates the whole.
        estimates = [7 / len(part) * tf.reduce_sum(part) for part in parts]
        self.assertAllClose(
            4 / 7 * estimates[0] + 3 / 7 * estimates[1],
            tf.reduce_sum(every),
            1e-5,
        )


class EvidenceOnAGridTest(tf.test.TestCase):
    def test_evidence_is_elbo_plus_divergence_from_the_posterior(self):
        # log p(x) = ELBO + KL(q(z|x) || p(z|x)), each integral a sum on a grid.
        vae, images = small_vae(), random_bits(4)
        z, log_cell = grid()
        log_joint = vae.log_joint(images, tf.repeat(z[:, None], 4, 1))
        log_p = tf.reduce_logsumexp(log_joint + log_cell, 0)  # [4]
        q = vae.encoder(images)
        log_q = q.log_prob(z[:, None])
        weight = tf.exp(log_q + log_cell)
        divergence = tf.reduce_sum(weight * (log_q - log_joint + log_p), 0)
        noise = normal_noise(20_000, 4, 2)
        elbo = vae.elbo_terms(images, tf.concat([noise, -noise], 0)).elbo
        self.assertAllClose(tf.reduce_sum(weight, 0), tf.ones(4), 1e-3)
        self.assertAllGreater(divergence, 0.01)
        self.assertAllClose(elbo + divergence, log_p, 5e-3, 5e-3)


def gradients(vae, images, objective, estimator, seed, count=20):
    """Flattened gradients of the encoder and of all else, `[count, P]` each,
    from independent noise for every image and repetition."""
    phi = vae.inference_variables
    other = vae.generative_variables

    @tf.function
    def one(number):
        shape = (objective.num_samples, images.shape[0], 2)
        noise = tf.random.stateless_normal(shape, [seed, number])
        with tf.GradientTape() as tape:
            draws = vae.draws(images, noise, gradient_estimator=estimator)
            bound = objective(draws, tf.constant(0))
        found = tape.gradient(bound, phi + other)
        flat = [tf.reshape(slope, [-1]) for slope in found]
        return tf.concat(flat[: len(phi)], 0), tf.concat(flat[len(phi) :], 0)

    pairs = [one(tf.constant(number)) for number in range(count)]
    return [np.stack([pair[part] for pair in pairs]) for part in (0, 1)]


STL = objectives.ELBO(), "stl"
WEIGHTED_STL = objectives.ELBO(beta=2.5), "stl"
DREG = objectives.IWAE(3), "dreg"


class GradientEstimatorTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("mixture", WEIGHTED_STL, "mean_field"), ("vamp", DREG, "mean_field")
    )
    def test_has_the_mean_of_the_plain_one(self, *choices):
        self.assert_has_the_mean_of_the_plain_one(*choices)

    @parameterized.product(
        prior=("standard_normal", "mixture", "vamp"),
        objective_and_estimator=(STL, WEIGHTED_STL, DREG),
        posterior=("mean_field", "full_covariance"),
    )
    @pytest.mark.slow
    def test_has_that_mean_whatever_the_choices(self, **choices):
        self.assert_has_the_mean_of_the_plain_one(**choices)

    def assert_has_the_mean_of_the_plain_one(
        self, prior, objective_and_estimator, posterior
    ):
        objective, estimator = objective_and_estimator
        vae = small_vae(prior=prior, posterior=posterior)
        images = np.repeat(random_bits(2), 1500, 0)
        plain = gradients(vae, images, objective, "plain", 1)
        other = gradients(vae, images, objective, estimator, 2)
        for a, b in zip(plain, other):
            error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
            difference = np.abs(a.mean(0) - b.mean(0))
            self.assertAllGreater(5 * error + 1e-4 - difference, 0)
            # The bound on the error is far below what is compared.
            self.assertLess(error.max(), 0.1 * np.abs(a.mean(0)).max())

    @pytest.mark.slow
    def test_dreg_has_less_variance_for_the_encoder(self):
        self.assert_dreg_has_less_variance("standard_normal")

    @parameterized.parameters("mixture", "vamp")
    @pytest.mark.slow
    def test_dreg_has_less_variance_under_another_prior(self, prior):
        self.assert_dreg_has_less_variance(prior)

    def assert_dreg_has_less_variance(self, prior):
        # Of a model that has learned a little: where the weights are wild, as
        # at first, neither has a variance to speak of.
        objective, images = objectives.IWAE(50), random_bits(4)
        vae = small_vae(prior=prior, objective=objective)
        vae.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
        vae.fit(np.repeat(images, 3000, 0), batch_size=40, verbose=0)
        plain, _ = gradients(vae, images, objective, "plain", 1, 100)
        dreg, _ = gradients(vae, images, objective, "dreg", 1, 100)
        self.assertLess(dreg.var(0).sum(), 0.2 * plain.var(0).sum())

    def test_stl_vanishes_at_the_exact_posterior(self):
        # z ~ N(0, 1), x|z ~ N(z, 1): p(z|x) = N(x/2, 1/2).
        x = 0.8
        loc = tf.Variable([[x / 2]])
        scale = tf.Variable([[0.5**0.5]])
        prior = tfd.MultivariateNormalDiag(tf.zeros(1), tf.ones(1))
        slopes = {}
        for estimator in ("plain", "stl"):
            with tf.GradientTape() as tape:
                q = tfd.MultivariateNormalDiag(loc, scale)
                draws = drawn(
                    q,
                    prior,
                    normal_noise(1, 1, 1),
                    lambda z: tfd.Normal(z[..., 0], 1.0).log_prob(x),
                    gradient_estimator=estimator,
                )
                weight = tf.reduce_mean(draws.log_weights)
            slopes[estimator] = tape.gradient(weight, [loc, scale])
        self.assertAllClose(slopes["stl"], [[[0.0]], [[0.0]]], atol=1e-5)
        self.assertGreater(np.abs(slopes["plain"]).max(), 0.1)

    def test_values_do_not_depend_on_the_estimator(self):
        vae, images = small_vae(), random_bits(5)
        noise = normal_noise(4, 5, 2)
        plain, stl, dreg = (
            vae.draws(images, noise, gradient_estimator=name).log_weights
            for name in ("plain", "stl", "dreg")
        )
        self.assertAllClose(plain, stl, 1e-4, 1e-4)
        self.assertAllClose(plain, dreg, 1e-4, 1e-4)

    def test_auto(self):
        self.assertEqual(objectives.ELBO().estimator(True), "plain")
        self.assertEqual(objectives.IWAE().estimator(True), "dreg")
        self.assertEqual(objectives.IWAE().estimator(False), "plain")
        # With a prior made of q(z|x), dreg's variance is no smaller.
        self.assertEqual(objectives.IWAE().estimator(True, True), "plain")
        dreg = objectives.IWAE(gradient_estimator="dreg")
        self.assertEqual(dreg.estimator(True, True), "dreg")
        # With equal weights, both are one.
        dreg = objectives.ELBO(gradient_estimator="dreg")
        self.assertEqual(dreg.estimator(True), "stl")


class ObjectiveTest(parameterized.TestCase, tf.test.TestCase):
    step = tf.constant(0)

    def draws(self, num_samples=1, seed=0, **kwargs):
        vae, images = small_vae(**kwargs), random_bits(6)
        return vae.draws(images, normal_noise(num_samples, 6, 2, seed=seed))

    def test_gaussian_divergences_do_not_vary_with_the_seed(self):
        for posterior in ("mean_field", "full_covariance"):
            keras.utils.set_random_seed(0)
            vae = vae_tf.VAE(
                vae_tf.Encoder(2, posterior, hidden_units=(8,)),
                vae_tf.Decoder((4, 3, 1), hidden_units=(8,)),
            )
            one, two = (
                vae.elbo_terms(random_bits(3), normal_noise(1, 3, 2, seed=seed))
                for seed in (1, 2)
            )
            self.assertAllEqual(one.kl, two.kl)
            self.assertNotAllClose(one.reconstruction, two.reconstruction)

    def test_beta_weighs_the_divergence(self):
        draws = self.draws()
        terms = objectives.elbo(draws)
        for beta in (0.0, 1.0, 4.0):
            expected = np.mean(terms.reconstruction - beta * terms.kl)
            found = objectives.ELBO(beta=beta)(draws, self.step)
            self.assertAllClose(found, expected, 1e-5)

    def test_warm_up_is_linear(self):
        draws = self.draws()
        terms = objectives.elbo(draws)
        objective = objectives.ELBO(beta=2.0, kl_warmup_steps=10)
        for step, weight in ((0, 0.2), (4, 1.0), (9, 2.0), (500, 2.0)):
            found = objective(draws, tf.constant(step))
            expected = np.mean(terms.reconstruction - weight * terms.kl)
            self.assertAllClose(found, expected, 1e-5)

    def test_a_cyclical_warm_up_starts_again(self):
        # Fu et al. 2019, with as many steps at the top as on the way to it.
        objective = objectives.ELBO(
            beta=2.0, kl_warmup_steps=4, kl_schedule="cyclical"
        )
        cycle = [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
        found = [objective.kl_weight(tf.constant(n)) for n in range(20)]
        self.assertAllClose(found, (3 * cycle)[:20])

    @parameterized.parameters(True, False)
    def test_a_compiled_step_reads_what_is_set_meanwhile(self, jit_compile):
        draws = self.draws()
        terms = objectives.elbo(draws)
        objective = objectives.ELBO()
        objective.factorizes = True
        value = tf.function(
            lambda: objective(draws, self.step), jit_compile=jit_compile
        )
        for beta in (1.0, 0.0, 0.3):
            objective.beta = beta
            self.assertEqual(objective.beta, beta)
            expected = np.mean(terms.reconstruction - beta * terms.kl)
            self.assertAllClose(value(), expected, 1e-5)
        objective.beta, objective.free_bits = 1.0, 50.0
        expected = np.mean(terms.reconstruction) - 50.0 * 2
        self.assertAllClose(value(), expected, 1e-5)

    def test_what_is_set_survives_its_configuration(self):
        objective = objectives.ELBO(3, kl_schedule="cyclical")
        objective.beta, objective.free_bits = 0.1, 0.25
        again = objectives.ELBO.from_config(objective.get_config())
        self.assertEqual(again.get_config(), objective.get_config())
        self.assertEqual((again.beta, again.free_bits), (0.1, 0.25))

    def test_what_cannot_be_set(self):
        for objective, name, value in (
            (objectives.ELBO(), "beta", -1.0),
            (objectives.ELBO(), "free_bits", float("nan")),
            (objectives.IWAE(), "beta", 0.5),
            (objectives.IWAE(), "free_bits", 0.1),
            (small_vae(prior="mixture").objective, "free_bits", 0.1),
        ):
            with self.assertRaisesRegex(ValueError, f"{name}: expected"):
                setattr(objective, name, value)

    def test_no_free_bits_are_the_plain_bound(self):
        vae, images = small_vae(), random_bits(5)
        noise, slopes = normal_noise(1, 5, 2), []
        for factorizes in (True, False):
            vae.objective.factorizes = factorizes
            with tf.GradientTape() as tape:
                value = vae.objective(vae.draws(images, noise), self.step)
            slopes.append([value, *tape.gradient(value, vae.weights)])
        for one, other in zip(*slopes):
            self.assertAllClose(one, other, 1e-5, 1e-6)

    @parameterized.parameters(0.01, 0.3, 50.0)
    def test_free_bits(self, free_bits):
        draws = self.draws()
        q = draws.posterior
        loc, variance = q.mean().numpy(), q.variance().numpy()
        kl = 0.5 * (loc**2 + variance - 1 - np.log(variance))  # [B, D]
        expected = np.mean(objectives.elbo(draws).reconstruction) - np.sum(
            np.maximum(free_bits, kl.mean(0))
        )
        found = objectives.ELBO(free_bits=free_bits)(draws, self.step)
        self.assertAllClose(found, expected, 1e-5)

    def test_free_bits_cost_nothing_and_pull_nothing(self):
        vae, images = small_vae(), random_bits(5)
        noise = normal_noise(1, 5, 2)
        slopes = []
        for objective in (
            objectives.ELBO(free_bits=1e3),
            objectives.ELBO(beta=0),
        ):
            with tf.GradientTape() as tape:
                value = objective(vae.draws(images, noise), self.step)
            slopes.append(tape.gradient(value, vae.inference_variables))
        self.assertAllClose(*slopes)

    def test_free_bits_under_stl_have_the_plain_mean(self):
        vae, images = small_vae(), np.repeat(random_bits(2), 1500, 0)
        q = vae.encoder(images)
        kl = np.mean(
            objectives.kl_per_dimension(q, vae.prior_distribution()), 0
        )
        objective = objectives.ELBO(free_bits=float(kl.mean()))  # one of two
        plain, _ = gradients(vae, images, objective, "plain", 1)
        stl, _ = gradients(vae, images, objective, "stl", 2)
        error = np.sqrt((plain.var(0) + stl.var(0)) / len(plain))
        difference = np.abs(plain.mean(0) - stl.mean(0))
        self.assertAllGreater(5 * error + 1e-4 - difference, 0)

    def test_reported_is_the_bound_itself(self):
        draws = self.draws(4)
        plain = objectives.elbo(draws)
        for objective in (
            objectives.ELBO(4, beta=3.0, free_bits=2.0, kl_warmup_steps=9),
            objectives.IWAE(4),
        ):
            bounds = objective.bounds(draws)
            self.assertEqual(set(bounds), set(objective.names))
            self.assertAllEqual(bounds["elbo"], plain.elbo)
        weights = np.exp(draws.log_weights.numpy().astype(np.float64))
        self.assertAllClose(bounds["iwae"], np.log(weights.mean(0)), 1e-5)

    @parameterized.parameters("standard_normal", "mixture", "vamp")
    def test_iwae_of_one_sample_is_the_sampled_elbo(self, prior):
        draws = self.draws(1, prior=prior)
        sampled = draws.log_likelihood + draws.log_prior - draws.log_q
        bound = objectives.importance_weighted_bound(draws.log_weights)
        self.assertAllClose(bound, sampled[0], 1e-6, 1e-6)
        # And the ELBO in expectation.
        draws = self.draws(10_000, prior=prior)
        error = 5 * np.std(draws.log_weights, 0) / 100
        elbo = objectives.elbo(draws).elbo
        difference = np.abs(np.mean(draws.log_weights, 0) - elbo)
        self.assertAllGreater(error + 1e-4 - difference, 0)

    @parameterized.named_parameters(
        (
            "samples",
            objectives.ELBO,
            {"num_samples": 0},
            "num_samples: .* >= 1",
        ),
        ("beta", objectives.ELBO, {"beta": -1.0}, "beta: .* >= 0, received -1"),
        ("estimator", objectives.IWAE, {"gradient_estimator": "x"}, "one of a"),
        (
            "iwae_beta",
            objectives.IWAE,
            {"beta": 2.0},
            "beta: expected 1.0 with",
        ),
        ("iwae_warm_up", objectives.IWAE, {"kl_warmup_steps": 5}, "kl_warmup"),
        (
            "iwae_bits",
            objectives.IWAE,
            {"free_bits": 0.1},
            "inside a logarithm",
        ),
    )
    def test_refuses(self, objective, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            objective(**settings)
