import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import random_bits, small_vae

import vae_tf
from vae_tf import objectives
from vae_tf.inference.families import FAMILIES, OPEN_FLOW, flow_of


def steps_like(parameters, size=0.3):
    generator = np.random.default_rng(0)
    return tf.nest.map_structure(
        lambda value: tf.constant(
            size * generator.standard_normal(value.shape), tf.float32
        ),
        parameters,
    )


class FamiliesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*FAMILIES)
    def test_starts_as_what_it_is_given(self, family):
        q = small_vae(3, posterior=family).encoder(random_bits(5))
        start = FAMILIES[family].start(q)
        own = FAMILIES[family].distribution(start)
        self.assertEqual((own.batch_shape, own.event_shape), ([5], [3]))
        noise = tf.random.stateless_normal((7, 5, 3), seed=[0, 1])
        for function in (objectives.reparameterize, objectives.log_posterior):
            self.assertAllClose(
                function(own, noise), function(q, noise), 1e-5, 1e-5
            )

    @parameterized.parameters(*FAMILIES)
    def test_starts_with_the_moments_of_a_normal(self, family):
        q = small_vae(3).encoder(random_bits(5))
        own = FAMILIES[family].distribution(FAMILIES[family].start(q))
        noise = tf.random.stateless_normal((7, 5, 3), seed=[0, 1])
        for function in (objectives.reparameterize, objectives.log_posterior):
            self.assertAllClose(
                function(own, noise), function(q, noise), 1e-4, 1e-4
            )

    def test_a_flow_from_elsewhere_is_of_the_encoder_s_shape(self):
        head = vae_tf.IAF(3, flow_depth=3, flow_units=(7, 5))
        vae = small_vae(3, posterior=head)
        near = FAMILIES["iaf"].start(vae.encoder(random_bits(4)))
        q = small_vae(3).encoder(random_bits(4))
        far = FAMILIES["iaf"].start(q, flow_of(vae.encoder))
        shapes = [
            tf.nest.map_structure(lambda value: tuple(value.shape), one)
            for one in (near, far)
        ]
        self.assertEqual(*shapes)
        own = FAMILIES["iaf"].distribution(far)
        noise = tf.random.stateless_normal((7, 4, 3), seed=[0, 1])
        for function in (objectives.reparameterize, objectives.log_posterior):
            self.assertAllClose(
                function(own, noise), function(q, noise), 1e-4, 1e-4
            )
        self.assertEqual(flow_of(small_vae(3).encoder), OPEN_FLOW)

    @parameterized.parameters(*FAMILIES)
    def test_moves_no_image_but_its_own_and_stays_a_density(self, family):
        chosen = FAMILIES[family]
        start = chosen.start(
            small_vae(2, posterior=family).encoder(random_bits(3))
        )
        step = steps_like(start)
        moved = chosen.distribution(chosen.moved(start, step))
        # log q at its own draws, by the change of variables and by inversion.
        noise = tf.random.stateless_normal((50, 3, 2), seed=[0, 2])
        z = objectives.reparameterize(moved, noise)
        self.assertAllClose(
            objectives.log_posterior(moved, noise),
            moved.copy().log_prob(tf.identity(z)),
            1e-4,
            1e-4,
        )
        first = np.array([1.0, 0.0, 0.0], np.float32)
        alone = tf.nest.map_structure(
            lambda value: (
                value * first.reshape((3,) + (1,) * (value.shape.rank - 1))
            ),
            step,
        )
        z_alone = objectives.reparameterize(
            chosen.distribution(chosen.moved(start, alone)), noise
        )
        z_start = objectives.reparameterize(chosen.distribution(start), noise)
        self.assertAllClose(z_alone[:, 0], z[:, 0], 1e-6, 1e-6)
        self.assertAllEqual(z_alone[:, 1:], z_start[:, 1:])
        self.assertNotAllClose(z_alone[:, 0], z_start[:, 0], atol=0.05)

    @parameterized.parameters("mean_field", "full_covariance")
    def test_steps_are_in_standard_deviations(self, family):
        q = small_vae(3).encoder(random_bits(5))
        start = FAMILIES[family].start(q)
        step = tf.nest.map_structure(tf.zeros_like, start)
        step["loc"] += 0.5
        moved = FAMILIES[family].moved(start, step)
        up = (moved["loc"] - q.mean()) / q.stddev()
        self.assertAllClose(up, 0.5 + tf.zeros((5, 3)), 1e-4)

    def test_numbers_of_each_image(self):
        q = small_vae(3).encoder(random_bits(5))
        numbers = sum(
            value.shape[0] * value.shape[1]
            for value in FAMILIES["mean_field"].start(q).values()
        )
        self.assertEqual(numbers, 2 * 5 * 3)
