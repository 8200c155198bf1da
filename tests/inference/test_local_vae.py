import pathlib
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear import SCALE, grey, linear_vae
from small import IMAGE_SHAPE, random_bits

import vae_tf
from vae_tf.evaluation import linear_gaussian
from vae_tf.inference import local_vae as variational_em
from vae_tf.inference.local_vae import HELD_OUT_UPDATES, UPDATES, LocalVAE
from vae_tf.inference.table import PosteriorTable

N, HELD_OUT, D = 12, 5, 2


def local_vae(latent_dim=D, decoder=None, rate=1e-2, **kwargs):
    """A model of N images and some held out."""
    keras.utils.set_random_seed(0)
    vae = LocalVAE(
        PosteriorTable(latent_dim, N),
        decoder or vae_tf.Decoder(IMAGE_SHAPE, hidden_units=(5, 8)),
        PosteriorTable(latent_dim, HELD_OUT, trainable=False),
        **kwargs,
    )
    # Compiling a small step with XLA takes longer than running it.
    vae.compile(keras.optimizers.Adam(rate), jit_compile=False)
    return vae


def numbered(images, first=0):
    return {"image": images, "row": np.arange(first, first + len(images))}


class LocalVAETest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.images, cls.held_out = random_bits(N), random_bits(HELD_OUT, 1)
        cls.vae = local_vae()

    def test_counts(self):
        numbers = sum(np.prod(v.shape) for v in self.vae.inference_variables)
        self.assertEqual(numbers, 2 * N * D)
        self.assertLen(
            self.vae.trainable_variables,
            2 + len(self.vae.generative_variables),
        )
        # Adam keeps two slots for each variable of theta, none for rows.
        slots = self.vae.optimizer
        slots.build(self.vae.optimized_variables)
        self.assertLen(
            slots.variables, 2 + 2 * len(self.vae.generative_variables)
        )

    def test_a_step_moves_theta_and_its_own_rows_alone(self):
        vae = self.vae
        before = vae.encoder.get_weights(), vae.held_out.get_weights()
        theta = [v.numpy() for v in vae.generative_variables]
        rows = [3, 8, 9]
        others = [row for row in range(N) if row not in rows]
        vae.train_on_batch({"image": self.images[rows], "row": np.array(rows)})
        for old, new in zip(before[0], vae.encoder.get_weights()):
            self.assertAllEqual(old[others], new[others])
            for row in rows:
                self.assertNotAllEqual(old[row], new[row])
        for old, new in zip(before[1], vae.held_out.get_weights()):
            self.assertAllEqual(old, new)
        for old, new in zip(theta, vae.generative_variables):
            self.assertNotAllEqual(old, new)

    def test_validation_moves_rows_held_out_and_nothing_else(self):
        vae = self.vae
        others = vae.encoder.weights + vae.generative_variables
        before = [v.numpy() for v in others]
        held_out = vae.held_out.get_weights()
        vae.test_on_batch(numbered(self.held_out))
        for old, new in zip(before, others):
            self.assertAllEqual(old, new)
        for old, new in zip(held_out, vae.held_out.get_weights()):
            self.assertNotAllEqual(old, new)

    def test_rows_held_out_end_at_the_exact_posterior(self):
        # A z of one dimension has nothing to be independent of: q(z|x) can be
        # the posterior, and the ELBO log p(x).
        linear, weights, offset = linear_vae(1)
        vae = local_vae(
            1, linear.decoder, objective=vae_tf.ELBO(num_samples=32)
        )
        images = grey(HELD_OUT)
        exact = linear_gaussian.linear_gaussian(images, weights, offset, SCALE)
        for rate in (4e-3, 1e-3, 2e-4):
            vae.optimizer.learning_rate = rate
            for _ in range(30):
                found = vae.test_on_batch(numbered(images), return_dict=True)
        posterior = vae.held_out(tf.range(HELD_OUT))
        scale = np.sqrt(exact.covariance[0, 0])
        self.assertAllClose(
            posterior.mean() / scale, exact.loc / scale, atol=0.1
        )
        self.assertAllClose(
            posterior.stddev() / scale, np.ones((HELD_OUT, 1)), atol=0.1
        )
        log_p = exact.log_marginal_likelihood.mean()
        self.assertAllClose(found["elbo"], log_p, atol=0.3)  # 32 draws

    def test_a_row_goes_to_a_better_place_of_another_and_to_no_worse(self):
        linear, weights, offset = linear_vae(1, strength=2.0)
        vae = local_vae(1, linear.decoder, rate=1e-9)
        images = np.tile(grey(1), (HELD_OUT, 1, 1, 1))
        exact = linear_gaussian.linear_gaussian(images, weights, offset, SCALE)
        scale = np.sqrt(exact.covariance[0, 0])
        # One row lies where it should, one close by, the others far away.
        away = np.array([[0.0], [0.1], [30.0], [-40.0], [50.0]])
        vae.held_out.loc.assign(exact.loc + scale * away)
        vae.held_out.scale.assign(np.full((HELD_OUT, 1), scale))
        vae.held_out.visits.assign([7] * HELD_OUT)
        vae.test_on_batch(numbered(images))
        found = (vae.held_out.loc - exact.loc) / scale
        self.assertAllClose(found[:2], away[:2], atol=1e-3)
        self.assertAllInRange(found[2:], -0.001, 0.101)
        updates = HELD_OUT_UPDATES
        self.assertAllEqual(
            vae.held_out.visits, [7 + updates] * 2 + [updates] * 3
        )

    def test_a_row_where_it_is_best_stays_whatever_the_noise(self):
        # By one draw of z, the ELBO at the first row's place, 1.4 standard
        # deviations off, is larger by a nat or more for one draw in twelve.
        linear, weights, offset = linear_vae(1, strength=2.0)
        vae = local_vae(1, linear.decoder, rate=1e-9)
        apart = 1.4 * SCALE * weights[:, 0] / np.linalg.norm(weights)
        where = np.array([[-0.5]] + [[0.5]] * (N - 1))
        images = np.float32(0.5 + where * apart).reshape(N, *IMAGE_SHAPE)
        exact = linear_gaussian.linear_gaussian(images, weights, offset, SCALE)
        scale = np.sqrt(exact.covariance[0, 0])
        vae.encoder.loc.assign(exact.loc)
        vae.encoder.scale.assign(np.full((N, 1), scale))
        with mock.patch.object(variational_em, "PLACES", 1):
            for _ in range(20):
                vae.train_on_batch(numbered(images))
        self.assertAllEqual(vae.encoder.visits, [20 * UPDATES] * N)
        self.assertAllClose(vae.encoder.loc, exact.loc, atol=1e-3 * scale)

    def test_saves_and_loads(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "vae.keras"
        self.vae.train_on_batch(numbered(self.images))
        self.vae.save(path)
        loaded = vae_tf.load(path)
        self.assertIsInstance(loaded, LocalVAE)
        for old, new in zip(self.vae.get_weights(), loaded.get_weights()):
            self.assertAllEqual(old, new)
        rows = tf.range(3)
        self.assertAllEqual(self.vae(rows), loaded(rows))
        self.assertLen(
            loaded.optimizer.variables, len(self.vae.optimizer.variables)
        )

    @pytest.mark.slow
    def test_importance_weighted_bound(self):
        vae = local_vae(objective=vae_tf.IWAE(4))
        self.assertEqual(vae.gradient_estimator, "dreg")
        first, *_, last = [
            vae.train_on_batch(numbered(self.images), return_dict=True)
            for _ in range(40)
        ]
        self.assertGreater(last["iwae"], last["elbo"])
        self.assertGreater(last["iwae"], first["iwae"] + 1.0)  # nats

    def test_images_have_no_posterior(self):
        for call in (
            self.vae,
            self.vae.reconstruct,
            self.vae.predict,
            lambda images: self.vae.elbo(images, seed=0),
            lambda images: vae_tf.log_marginal_likelihood(self.vae, images, 2),
        ):
            with self.assertRaisesRegex(
                vae_tf.UserError, r"images: expected numbers.*vae_tf\.infer"
            ):
                call(self.images)
        for call in (self.vae.fit, self.vae.evaluate):
            with self.assertRaisesRegex(
                vae_tf.UserError, r"data: expected dicts .*numbered=True"
            ):
                call(self.images, verbose=0)

    def test_refuses_what_needs_an_encoder(self):
        prior = vae_tf.VampPrior(D, num_components=3)
        for name, changes in (
            ("prior", {"prior": prior}),
            ("train_variables", {"train_variables": "inference"}),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, f"^{name}: expected"):
                local_vae(**changes)
