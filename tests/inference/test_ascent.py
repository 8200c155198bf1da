from unittest import mock

import numpy as np
import tensorflow as tf
from linear import grey, linear_vae

from vae_tf.inference import ascent, weights
from vae_tf.inference.families import FAMILIES

COUNT = 6


class AscentTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae, _, _ = linear_vae(strength=1.0, alike=0.6)
        cls.images = tf.constant(grey(COUNT))
        cls.start = FAMILIES["mean_field"].start(cls.vae.encoder(cls.images))

    def maximised(self, max_steps=2000, tolerance=0.01):
        finished = []
        with (
            mock.patch.object(weights, "AT_ONCE", 4),
            mock.patch.object(ascent, "AT_ONCE", 4),
        ):  # so that the last part is filled up with images of before
            found = ascent.maximised(
                self.vae,
                self.images,
                "mean_field",
                self.start,
                tolerance,
                max_steps,
                0,
                finished.append,
            )
        return *found, finished

    def elbo(self, parameters):
        return weights.log_weights(
            self.vae, self.images, "mean_field", parameters, 256, seed=1
        ).mean(0)

    def test_goes_up_to_where_it_converges(self):
        parameters, steps, converged, finished = self.maximised()
        self.assertAllGreater(self.elbo(parameters) - self.elbo(self.start), 0)
        least = sum(steps for _, steps in ascent.TURNS)
        self.assertAllInRange(steps, least, 2200)
        self.assertAllEqual(converged, [True] * COUNT)
        self.assertEqual(sum(finished), COUNT)

    def test_an_image_does_not_meet_its_neighbours(self):
        parameters, steps, _, _ = self.maximised()
        order = np.array([5, 1, 0, 3, 4, 2])
        with mock.patch.object(
            type(self), "images", tf.gather(self.images, order)
        ):
            self.start = {
                name: tf.gather(value, order)
                for name, value in type(self).start.items()
            }
            others, other_steps, _, _ = self.maximised()
        for name, value in parameters.items():
            self.assertAllClose(others[name], value[order], 1e-4, 1e-4)
        self.assertAllEqual(other_steps, steps[order])

    def test_stops_where_it_must(self):
        start = {name: value + 0 for name, value in self.start.items()}
        start["loc"] += 30.0
        self.start = start  # too far for so few steps
        parameters, steps, converged, _ = self.maximised(max_steps=100)
        self.assertAllInRange(steps, 100, 100 + ascent.TURNS[0][1])
        self.assertAllEqual(converged, [False] * COUNT)
        # What was found so far is kept.
        self.assertAllGreater(self.elbo(parameters) - self.elbo(start), 1)

    def test_keeps_a_start_that_cannot_be_bettered(self):
        self.start, _, _, _ = self.maximised()
        parameters, _, _, _ = self.maximised(tolerance=10.0)
        self.assertAllGreater(
            self.elbo(parameters) - self.elbo(self.start), -0.01
        )
