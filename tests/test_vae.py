import concurrent.futures
import itertools
import multiprocessing
import subprocess
import sys
import warnings
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, combined, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf import vae as vae_module
from vae_tf.likelihoods import LIKELIHOODS
from vae_tf.noise import key, standard_normal
from vae_tf.posteriors import POSTERIORS
from vae_tf.priors import PRIORS


def compiled(vae=None, optimizer=None, jit_compile=False, **kwargs):
    # Compiling a small step with XLA takes longer than running it.
    vae = vae or small_vae()
    kwargs["jit_compile"] = jit_compile
    vae.compile(optimizer=optimizer or keras.optimizers.Adam(1e-2), **kwargs)
    return vae


def noise_of_update(vae, images, number):
    """What update `number` of a training draws."""
    shape = (vae.objective.num_samples, len(images), vae.encoder.latent_dim)
    return standard_normal(shape, key("training", vae.seed, number))


class ModelTest(parameterized.TestCase, tf.test.TestCase):
    def test_elbo_is_per_example(self):
        vae, images = small_vae(), random_bits(6)
        noise = tf.random.stateless_normal((2, 6, 2), seed=[0, 1])
        terms = vae.elbo_terms(images, noise)
        for term in terms:
            self.assertEqual(term.shape, (6,))
        self.assertAllClose(terms.elbo, terms.reconstruction - terms.kl)
        for row in range(6):
            only = slice(row, row + 1)
            alone = vae.elbo_terms(images[only], noise[:, only]).elbo
            self.assertAllClose(alone, terms.elbo[only], 1e-5, 1e-5)

    def test_latent_draws_follow_the_seed(self):
        vae, images = small_vae(), random_bits(3)
        self.assertAllEqual(vae.elbo(images, seed=1), vae.elbo(images, seed=1))
        self.assertNotAllClose(
            vae.elbo(images, seed=1), vae.elbo(images, seed=2)
        )

    def test_more_samples_give_the_same_elbo_with_less_noise(self):
        vae, image = small_vae(), random_bits(1)
        # Every row has noise of its own.
        one = vae.elbo(np.repeat(image, 200, axis=0), seed=0)
        many = vae.elbo(np.repeat(image, 20, axis=0), 1, 100)
        self.assertAllClose(
            np.mean(one), np.mean(many), atol=4 * np.std(one) / 200**0.5
        )
        self.assertLess(np.std(many), np.std(one) / 4)

    def test_log_joint_is_likelihood_times_prior(self):
        vae, images = small_vae(), random_bits(4)
        z = tf.random.stateless_normal((3, 4, 2), seed=[0, 1])
        expected = vae.decoder(z).log_prob(images) + tf.reduce_sum(
            tfd.Normal(0.0, 1.0).log_prob(z), -1
        )
        self.assertAllClose(vae.log_joint(images, z), expected, 1e-5, 1e-5)

    def test_samples_are_ancestral(self):
        vae = small_vae()
        draws = vae.sample(4000, seed=1)
        self.assertEqual(draws.shape, (4000, *IMAGE_SHAPE))
        self.assertAllInSet(draws, [0.0, 1.0])
        self.assertAllEqual(draws, vae.sample(4000, seed=1))
        z = tf.random.stateless_normal((4000, 2), seed=[5, 6])
        expected = tf.reduce_mean(vae.decoder(z).mean(), 0)
        self.assertAllClose(tf.reduce_mean(draws, 0), expected, atol=0.05)

    def test_samples_come_with_their_z(self):
        vae = small_vae()
        z, images = vae.sample_joint(4000, seed=1)
        self.assertAllEqual(images, vae.sample(4000, seed=1))
        self.assertAllClose(np.cov(z.numpy().T), np.eye(2), atol=0.1)
        # E[log p(x|z)] is minus the entropy of p(x|z): of other z it is less.
        found = vae.decoder(z).log_prob(images)
        probability = vae.decoder(z).mean()
        entropy = tf.reduce_sum(
            tfd.Bernoulli(probs=probability).entropy(), [1, 2, 3]
        )
        error = np.std(found + entropy) / 4000**0.5
        self.assertAllClose(np.mean(found), -np.mean(entropy), atol=4 * error)
        others = vae.decoder(z[::-1]).log_prob(images)
        self.assertLess(np.mean(others), np.mean(found) - 5 * error)

    def test_reconstruction_is_the_mean_at_the_mean(self):
        vae, images = small_vae(), random_bits(5)
        expected = vae.decoder(vae.encoder(images).mean()).mean()
        self.assertAllClose(vae.reconstruct(images), expected)
        self.assertAllClose(vae.predict(images, verbose=0), expected, 1e-5)

    def test_symbolic_calls(self):
        vae = small_vae()
        inputs = keras.Input(IMAGE_SHAPE)
        functional = keras.Model(inputs, vae(inputs))
        images = random_bits(2)
        self.assertAllClose(functional(images), vae(images))

    def test_phi_and_theta_are_disjoint_and_make_up_the_whole(self):
        vae = small_vae()
        phi = {id(v) for v in vae.inference_variables}
        theta = {id(v) for v in vae.generative_variables}
        self.assertEmpty(phi & theta)
        self.assertEqual(phi | theta, {id(v) for v in vae.trainable_variables})
        self.assertLen(phi, 6)
        self.assertLen(theta, 6)

    def test_gradient_of_the_elbo_agrees_with_finite_differences(self):
        vae, images = small_vae(), random_bits(3)
        noise = tf.random.stateless_normal((1, 3, 2), seed=[0, 1])

        def elbo():
            return tf.reduce_mean(vae.elbo_terms(images, noise).elbo)

        with tf.GradientTape() as tape:
            value = elbo()
        gradients = tape.gradient(value, vae.trainable_variables)
        generator = np.random.default_rng(0)
        for variable, gradient in zip(vae.trainable_variables, gradients):
            before = variable.numpy()
            direction = generator.standard_normal(before.shape)
            direction = (direction / np.linalg.norm(direction)).astype("f4")
            ends = []
            for sign in (1, -1):
                variable.assign(before + sign * 3e-3 * direction)
                ends.append(float(elbo()))
            variable.assign(before)
            slope = (ends[0] - ends[1]) / 6e-3
            self.assertAllClose(
                tf.reduce_sum(gradient * direction), slope, 0.02, 0.02
            )

    def test_gradient_agrees_with_the_score_function(self):
        # d/dloc E_q[f(z)] = E_q[f(z) d log q(z) / dloc], without paths.
        vae, images = small_vae(), random_bits(1)
        loc = tf.Variable(vae.encoder(images).mean())
        scale = vae.encoder(images).stddev()
        noise = tf.random.stateless_normal((100_000, 1, 2), seed=[0, 1])
        with tf.GradientTape() as path:
            z = loc + scale * noise
            f = vae.decoder(z).log_prob(images)
            mean = tf.reduce_mean(f)
        with tf.GradientTape() as score:
            q = tfd.MultivariateNormalDiag(loc, scale)
            log_q = q.log_prob(tf.stop_gradient(z))
            surrogate = tf.reduce_mean(log_q * tf.stop_gradient(f - mean))
        draws = (f - mean)[..., tf.newaxis] * (z - loc) / scale**2
        error = 5 * np.std(draws, axis=0).max() / 100_000**0.5
        self.assertLess(error, 0.2)
        self.assertAllClose(
            path.gradient(mean, loc),
            score.gradient(surrogate, loc),
            atol=error,
        )

    def test_a_wide_latent_is_no_bottleneck(self):
        with self.assertWarnsRegex(
            UserWarning, "12 is no bottleneck .* 12 pix"
        ):
            small_vae(latent_dim=12)


class TrainingTest(parameterized.TestCase, tf.test.TestCase):
    def test_fit_minimizes_the_negative_elbo(self):
        vae, images = compiled(run_eagerly=True), random_bits(8)
        calls = []

        def spy(loss, optimizer, variables, tape, *guard):
            calls.append((float(loss), optimizer, len(variables)))
            minimize(loss, optimizer, variables, tape, *guard)

        minimize = vae_module.minimize
        with mock.patch.object(vae_module, "minimize", spy):
            logs = vae.fit(images, batch_size=8, verbose=0).history
        ((loss, optimizer, count),) = calls
        self.assertAllClose(loss, -logs["elbo"][0], 1e-6)
        self.assertIs(optimizer, vae.optimizer)
        self.assertEqual(count, len(vae.trainable_variables))

    def test_one_step_of_gradient_descent(self):
        # theta <- theta - rho * d(-ELBO)/d(theta), for phi and theta alike.
        rho, images = 0.1, random_bits(4)
        vae = compiled(optimizer=keras.optimizers.SGD(rho))
        noise = noise_of_update(vae, images, 0)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(vae.elbo_terms(images, noise).elbo)
        gradients = tape.gradient(loss, vae.trainable_variables)
        before = [v.numpy() for v in vae.trainable_variables]
        vae.fit(images, batch_size=4, shuffle=False, verbose=0)
        for variable, old, gradient in zip(
            vae.trainable_variables, before, gradients
        ):
            self.assertNotAllClose(variable, old)
            self.assertAllClose(variable, old - rho * gradient, 1e-5, 1e-6)

    def test_losses_of_the_user_s_bodies_count(self):
        # Weight decay alone: with SGD, kernel <- (1 - 2 rate weight) kernel.
        def decayed(weight):
            keras.utils.set_random_seed(0)
            dense = keras.layers.Dense(
                5, kernel_regularizer=keras.regularizers.L2(weight)
            )
            vae = vae_tf.VAE(
                vae_tf.Encoder(
                    2, network=keras.Sequential([keras.layers.Flatten(), dense])
                ),
                vae_tf.Decoder(IMAGE_SHAPE, hidden_units=(5,)),
            )
            before = dense.kernel.numpy()
            vae.compile(keras.optimizers.SGD(1e-2), run_eagerly=True)
            shown = vae.train_on_batch(random_bits(8), return_dict=True)
            return before, dense.kernel.numpy(), shown

        before, free, shown = decayed(0.0)
        _, held, also_shown = decayed(2.0)
        self.assertAllClose(free - held, 0.04 * before, 1e-3, 1e-6)
        # What is reported stays the bound itself.
        self.assertAllClose(shown["elbo"], also_shown["elbo"])

    @parameterized.named_parameters(
        ("warm_up", lambda: vae_tf.ELBO(beta=3.0, kl_warmup_steps=4)),
        ("stl", lambda: vae_tf.ELBO(2, "stl")),
        ("dreg", lambda: vae_tf.IWAE(3)),
    )
    def test_a_step_takes_the_objective_s_own_gradient(self, objective):
        # Two steps of plain gradient descent against their definition: the
        # weight of the KL divergence has risen in the second, and stl and dreg
        # move phi elsewhere than the plain estimator would.
        images = random_bits(5)
        vae = small_vae(objective=objective())
        twin = small_vae(objective=objective())
        vae.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        for step in range(2):
            vae.train_on_batch(images)
            noise = noise_of_update(twin, images, step)
            with tf.GradientTape(persistent=True) as tape:
                draws = twin.draws(
                    images, noise, gradient_estimator=twin.gradient_estimator
                )
                loss = -twin.objective(draws, tf.constant(step))
                at_first = -twin.objective(draws, tf.constant(0))
                plain = -twin.objective(twin.draws(images, noise), step)
            slopes, unlike = (
                tape.gradient(value, twin.trainable_variables)
                for value in (
                    loss,
                    at_first if twin.gradient_estimator == "plain" else plain,
                )
            )
            for variable, slope in zip(twin.trainable_variables, slopes):
                variable.assign_sub(0.1 * slope)
        for ours, theirs in zip(
            vae.trainable_variables, twin.trainable_variables
        ):
            self.assertAllClose(ours, theirs, 1e-5, 1e-6)
        # The difference is one that the comparison above would see.
        gap = max(np.abs(a - b).max() for a, b in zip(slopes, unlike))
        self.assertGreater(0.1 * gap, 1e-3)

    def test_training_raises_the_elbo_and_the_reconstruction(self):
        self.assert_training_raises_the_elbo(jit_compile=False)

    @pytest.mark.slow
    def test_training_by_xla_raises_the_elbo_and_the_reconstruction(self):
        self.assert_training_raises_the_elbo(jit_compile=True)

    def assert_training_raises_the_elbo(self, jit_compile):
        images = np.repeat(random_bits(6), 20, 0)
        keras.utils.set_random_seed(0)
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(16,)),
            vae_tf.Decoder(IMAGE_SHAPE, hidden_units=(16,)),
        )
        vae = compiled(vae, keras.optimizers.Adam(3e-2), jit_compile)
        vae.adapt(images)
        # The best that knows no image from another: the mean image.
        mean = np.clip(images.mean(0), 1e-3, 1 - 1e-3)
        baseline = np.mean(
            np.sum(
                images * np.log(mean) + (1 - images) * np.log(1 - mean),
                (1, 2, 3),
            )
        )
        history = vae.fit(
            images, validation_data=images, epochs=20, verbose=0
        ).history
        self.assertGreater(history["elbo"][-1], history["elbo"][0] + 2)
        self.assertGreater(history["val_reconstruction"][-1], baseline + 1)

    def test_metrics_weigh_a_short_last_batch_right(self):
        vae, images = compiled(), random_bits(10)
        measured = vae.evaluate(
            images, batch_size=8, verbose=0, return_dict=True
        )
        self.assertEqual(
            set(measured), {"loss", "elbo", "reconstruction", "kl"}
        )
        self.assertAllClose(measured["loss"], -measured["elbo"])
        posterior = vae.encoder(images)
        prior = vae.prior_distribution()
        kl = tfd.kl_divergence(posterior, prior)
        self.assertAllClose(measured["kl"], np.mean(kl), 1e-5)
        self.assertAllClose(
            measured["elbo"], measured["reconstruction"] - measured["kl"], 1e-5
        )

    def test_evaluate_gives_the_same_numbers_with_fresh_noise_per_batch(self):
        vae = compiled()
        images = np.repeat(random_bits(1), 2, 0)
        measure = [
            vae.evaluate(images, batch_size=1, verbose=0, return_dict=True)
            for _ in range(2)
        ]
        self.assertEqual(measure[0], measure[1])
        first = vae.evaluate(
            images[:1], batch_size=1, verbose=0, return_dict=True
        )
        self.assertNotEqual(measure[0]["elbo"], first["elbo"])

    @pytest.mark.slow
    def test_fit_takes_arrays_datasets_and_labels(self):
        images, labels = random_bits(8), np.arange(8)
        as_dataset = tf.data.Dataset.from_tensor_slices
        results = []
        for data in (
            images,
            as_dataset(images).batch(4),
            as_dataset((images, labels)).batch(4),
        ):
            vae = compiled(run_eagerly=True)
            options = {"batch_size": 4} if data is images else {}
            vae.fit(
                data, validation_data=data, shuffle=False, verbose=0, **options
            )
            results.append(vae.elbo(images, seed=1))
        self.assertAllClose(results[0], results[1])
        self.assertAllClose(results[0], results[2])

    def test_the_same_seed_trains_the_same_model(self):
        images = random_bits(16)
        weights = []
        for seed in (0, 0, 1):
            vae = compiled(small_vae(), keras.optimizers.SGD(1e-2))
            vae.seed = seed
            vae.fit(images, epochs=2, shuffle=False, verbose=0)
            weights.append(vae.get_weights())
        for one, same in zip(*weights[:2]):
            self.assertAllEqual(one, same)
        self.assertNotAllClose(weights[0][0], weights[2][0])

    def test_adapt_sets_the_bias_from_the_mean_image(self):
        images = random_bits(50)
        for data in (
            images,
            tf.data.Dataset.from_tensor_slices(images).batch(7),
            tf.data.Dataset.from_tensor_slices((images, images)).batch(7),
        ):
            vae = small_vae()
            vae.adapt(data)
            mean = (images.sum(0) + 0.5) / 51
            bias = tf.reshape(vae.decoder.likelihood.bias, IMAGE_SHAPE)
            self.assertAllClose(tf.sigmoid(bias), mean, 1e-5)

    def test_a_body_of_the_user_s_trains_in_training_mode(self):
        norm = keras.layers.BatchNormalization()
        body = keras.Sequential([keras.layers.Flatten(), norm])
        vae = compiled(
            vae_tf.VAE(
                vae_tf.Encoder(2, network=body), vae_tf.Decoder(IMAGE_SHAPE)
            )
        )
        images = np.ones_like(random_bits(8))
        vae.evaluate(images, verbose=0)
        self.assertAllClose(norm.moving_mean, tf.zeros(12))
        vae.fit(images, verbose=0)
        self.assertAllGreater(norm.moving_mean, 0.0)

    @pytest.mark.slow
    def test_held_out_images_are_reconstructed_better_than_by_their_mean(self):
        data = vae_tf.load_data("digits")
        keras.utils.set_random_seed(0)
        vae = vae_tf.VAE(
            vae_tf.Encoder(4, hidden_units=(64,)),
            vae_tf.Decoder((8, 8, 1), hidden_units=(64,)),
        )
        vae.adapt(data.train)
        vae = compiled(vae, keras.optimizers.Adam(3e-3))
        mean = vae.decoder.likelihood.distribution(
            vae.decoder.likelihood.bias.numpy().reshape(8, 8, 1)
        )
        held_out = np.concatenate(list(data.validation))
        baseline = np.mean(mean.log_prob(held_out))
        vae.fit(data.train, epochs=25, verbose=0)
        found = vae.evaluate(held_out, verbose=0, return_dict=True)
        self.assertGreater(found["reconstruction"], baseline + 3)
        self.assertGreater(found["elbo"], baseline)

    def test_fit_takes_what_only_keras_can_look_into(self):
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 3

            def __getitem__(self, number):
                return (random_bits(4, seed=number),)

        vae = compiled()
        vae.fit(Batches(), verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 3)

    def test_fit_looks_at_a_dataset_until_it_passes_and_then_no_more(self):
        def passes(images):
            count = tf.Variable(0)

            def counted(number):
                count.assign_add(1)
                return images

            return tf.data.Dataset.range(1).map(counted), count

        vae = compiled()
        dataset, count = passes(random_bits(4))
        for expected in (2, 3):  # a look and an epoch, an epoch alone
            vae.fit(dataset, verbose=0)
            self.assertEqual(int(count), expected)
        dataset, _ = passes(random_bits(4) + 0.5)
        for _ in range(2):
            with self.assertRaisesRegex(vae_tf.UserError, "images: expected"):
                vae.fit(dataset, verbose=0)


# log q(z|x) of an autoregressive flow at a z of another origin.
NEVER = ("iaf", "vamp")


class SavingTest(parameterized.TestCase, tf.test.TestCase):
    def test_round_trip(self):
        vae, images = compiled(), random_bits(6)
        vae.fit(images, verbose=0)
        path = self.create_tempdir().full_path + "/vae.keras"
        vae.save(path)
        loaded = keras.saving.load_model(path)
        self.assertAllEqual(loaded.elbo(images, 1), vae.elbo(images, 1))
        self.assertAllEqual(loaded.sample(3, 1), vae.sample(3, 1))
        # Training goes on where it stopped: optimizer and noise came along.
        for model in (vae, loaded):
            model.fit(images, shuffle=False, verbose=0)
        self.assertAllClose(loaded.elbo(images, 1), vae.elbo(images, 1))

    @pytest.mark.slow
    def test_loads_in_a_fresh_process(self):
        self.assert_loads_in_a_fresh_process("import vae_tf", "vae_tf.load")

    @parameterized.parameters(
        # Importing the package is enough, before Keras or after it.
        ("import keras, vae_tf", "keras.models.load_model"),
        ("import vae_tf, keras", "keras.models.load_model"),
    )
    @pytest.mark.slow
    def test_loads_in_keras_own_way(self, imports, load):
        self.assert_loads_in_a_fresh_process(imports, load)

    def assert_loads_in_a_fresh_process(self, imports, load):
        vae, images = small_vae(), random_bits(2)
        path = self.create_tempdir().full_path + "/vae.keras"
        vae.save(path)
        code = (
            f"{imports}; import sys, numpy as np; "
            "images = np.array(eval(sys.argv[2]), np.float32); "
            f"print({load}(sys.argv[1]).reconstruct(images).numpy().sum())"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, path, str(images.tolist())],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = vae.reconstruct(images).numpy().sum()
        self.assertAllClose(float(result.stdout), expected, 1e-5)

    @parameterized.product(
        likelihood=tuple(LIKELIHOODS), network=("mlp", "conv")
    )
    def test_round_trip_of_every_likelihood_and_body(self, likelihood, network):
        self.round_trip(combined(likelihood, network=network))

    @parameterized.parameters(
        *((q, p) for q in POSTERIORS for p in PRIORS if (q, p) != NEVER)
    )
    def test_round_trip_of_every_posterior_and_prior(self, posterior, prior):
        objective = vae_tf.IWAE(3, "plain")
        self.round_trip(combined("bernoulli", posterior, prior, objective))

    def round_trip(self, vae):
        images = random_bits(3)
        vae.adapt(images)
        path = self.create_tempfile("vae.keras").full_path
        vae.save(path)
        again = vae_tf.load(path)
        noise = tf.random.stateless_normal((2, 3, 2), seed=[0, 1])
        one, two = vae.draws(images, noise), again.draws(images, noise)
        self.assertAllClose(one.log_weights, two.log_weights, 1e-5, 1e-5)
        self.assertAllClose(
            vae.reconstruct(images), again.reconstruct(images), 1e-5, 1e-5
        )
        self.assertAllClose(vae.sample(2, seed=1), again.sample(2, seed=1))
        self.assertEqual(
            again.objective.get_config(), vae.objective.get_config()
        )


ROWS = {
    "elbo": lambda: vae_tf.ELBO(),
    "elbo_stl": lambda: vae_tf.ELBO(2, "stl"),
    "beta_and_warm_up": lambda: vae_tf.ELBO(beta=2.0, kl_warmup_steps=5),
    "free_bits": lambda: vae_tf.ELBO(free_bits=1e-4),
    "iwae": lambda: vae_tf.IWAE(3),
    "iwae_plain": lambda: vae_tf.IWAE(3, "plain"),
    "iwae_stl": lambda: vae_tf.IWAE(3, "stl"),
}
FACTORS = {
    "likelihood": tuple(LIKELIHOODS),
    "posterior": tuple(POSTERIORS),
    "prior": tuple(PRIORS),
    "objective": tuple(ROWS),
    "network": ("mlp", "conv"),
    "jit": (False, True),
}


def is_possible(likelihood, posterior, prior, objective, network, jit):
    """Whether a combination is none of those that are refused."""
    if posterior == "iaf":
        return prior != "vamp" and objective not in (
            "elbo_stl",
            "iwae_stl",
            "free_bits",
        )
    if objective == "free_bits":
        return (posterior, prior) == ("mean_field", "standard_normal")
    return True


EVERY = [
    combination
    for combination in itertools.product(*FACTORS.values())
    if is_possible(*combination)
]


def covering_array():
    """Combinations in which every possible pair of choices occurs, greedily."""

    def pairs(combination):
        return set(itertools.combinations(enumerate(combination), 2))

    left = set().union(*map(pairs, EVERY))
    chosen = []
    while left:
        chosen.append(max(EVERY, key=lambda c: len(pairs(c) & left)))
        left -= pairs(chosen[-1])
    return chosen


class Combination(parameterized.TestCase, tf.test.TestCase):
    def train(self, likelihood, posterior, prior, objective, network, jit):
        images = random_bits(6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stl with iwae
            vae = combined(
                likelihood, posterior, prior, ROWS[objective](), network
            )
        vae.adapt(images)
        noise = tf.random.stateless_normal(
            (vae.objective.num_samples, 6, 2), seed=[0, 1]
        )
        with tf.GradientTape() as tape:
            draws = vae.draws(
                images, noise, vae_module.BOTH, vae.gradient_estimator
            )
            loss = -vae.objective(draws, tf.constant(0))
        for variable, slope in zip(
            vae.trainable_variables,
            tape.gradient(loss, vae.trainable_variables),
        ):
            self.assertGreater(np.abs(slope).max(), 0, variable.path)
            self.assertTrue(np.all(np.isfinite(slope)), variable.path)
        vae.compile("adam", jit_compile=jit, run_eagerly=not jit)
        before = [np.array(v) for v in vae.trainable_variables]
        history = vae.fit(images, batch_size=3, verbose=0).history
        self.assertEqual(int(vae.optimizer.iterations), 2)
        for name, (value,) in history.items():
            self.assertTrue(np.isfinite(value), name)
        for old, variable in zip(before, vae.trainable_variables):
            self.assertNotAllEqual(old, variable, variable.path)


class CoveringArrayTest(Combination):
    @parameterized.parameters(*covering_array()[::4])
    def test_pairs_of_choices_train(self, *combination):
        self.train(*combination)

    @parameterized.parameters(
        *[row for n, row in enumerate(covering_array()) if n % 4]
    )
    @pytest.mark.slow
    def test_more_pairs_of_choices_train(self, *combination):
        self.train(*combination)

    def test_the_covering_array_is_small(self):
        self.assertLess(len(covering_array()), 45)
        self.assertGreater(len(EVERY), 500)


def train_every(likelihood, network):
    """Trains the combinations of a likelihood and a network."""
    for combination in EVERY:
        if (combination[0], combination[4]) == (likelihood, network):
            print(*combination, flush=True)
            Combination("train").train(*combination)


@pytest.mark.slow
class EveryCombinationTest(parameterized.TestCase):
    @parameterized.product(
        likelihood=tuple(LIKELIHOODS), network=("mlp", "conv")
    )
    def test_trains(self, likelihood, network):
        # In a process of its own, because XLA keeps what it has compiled: 25 GB
        # for all of them.
        with concurrent.futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn")
        ) as process:
            process.submit(train_every, likelihood, network).result()


class VariationalEMTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("inference", "generative")
    def test_the_other_variables_are_left_bit_identical(self, moved):
        self.assert_the_others_are_left(moved, jit=False)

    @parameterized.parameters("inference", "generative")
    @pytest.mark.slow
    def test_xla_leaves_the_other_variables_bit_identical(self, moved):
        self.assert_the_others_are_left(moved, jit=True)

    def assert_the_others_are_left(self, train_variables, jit):
        vae = compiled(
            small_vae(prior="mixture", train_variables=train_variables),
            jit_compile=jit,
        )
        moved = getattr(vae, f"{train_variables}_variables")
        ids = {id(variable) for variable in moved}
        held = [v for v in vae.trainable_variables if id(v) not in ids]
        before = [np.array(v) for v in held], [np.array(v) for v in moved]
        elbo = np.mean(vae.elbo(random_bits(8), 1, num_samples=500))
        vae.fit(random_bits(8), batch_size=8, epochs=30, verbose=0)
        for old, variable in zip(before[0], held):
            self.assertAllEqual(old, variable)
        for old, variable in zip(before[1], moved):
            self.assertNotAllEqual(old, variable)
        after = np.mean(vae.elbo(random_bits(8), 1, num_samples=500))
        self.assertGreater(after, elbo)

    @parameterized.parameters("inference", "generative")
    def test_a_network_that_is_held_keeps_its_statistics_too(self, moved):
        def body(units):
            return keras.Sequential(
                [
                    keras.layers.Flatten(),
                    keras.layers.Dense(units),
                    keras.layers.BatchNormalization(),
                ]
            )

        vae = vae_tf.VAE(
            vae_tf.Encoder(2, network=body(5)),
            vae_tf.Decoder(IMAGE_SHAPE, network=body(5)),
            train_variables=moved,
        )
        parts = {"inference": vae.encoder, "generative": vae.decoder}
        before = {k: part.get_weights() for k, part in parts.items()}
        compiled(vae).fit(random_bits(8), verbose=0)
        for name, part in parts.items():
            same = [
                np.array_equal(old, new)
                for old, new in zip(before[name], part.get_weights())
            ]
            if name == moved:
                self.assertFalse(any(same))
            else:
                self.assertTrue(all(same))

    def test_alternation_moves_phi_then_theta(self):
        # Two updates of plain gradient descent, the second from where the first
        # one ended, each on noise of its own.
        images = random_bits(5)
        vae = small_vae(train_variables="alternate")
        twin = small_vae()
        vae.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        vae.train_on_batch(images)
        self.assertEqual(int(vae.optimizer.iterations), 2)
        for update, variables in enumerate(
            (twin.inference_variables, twin.generative_variables)
        ):
            noise = noise_of_update(twin, images, update)
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(twin.elbo_terms(images, noise).elbo)
            for variable, slope in zip(
                variables, tape.gradient(loss, variables)
            ):
                variable.assign_sub(0.1 * slope)
        for ours, theirs in zip(
            vae.trainable_variables, twin.trainable_variables
        ):
            self.assertAllClose(ours, theirs, 1e-5, 1e-6)
