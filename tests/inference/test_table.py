import keras
import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.inference.table import PosteriorTable, Rows

N, D = 7, 3


class TableTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        keras.utils.set_random_seed(0)
        self.table = PosteriorTable(D, N)
        self.table.build((None, 4, 3, 1))

    def test_has_2nd_trainable_numbers(self):
        count = sum(np.prod(w.shape) for w in self.table.trainable_variables)
        self.assertEqual(count, 2 * N * D)
        held_out = PosteriorTable(D, N, trainable=False)
        held_out.build((None, 4, 3, 1))
        self.assertEmpty(held_out.trainable_variables)

    def test_starts_at_the_prior_and_no_two_rows_alike(self):
        posterior = self.table(tf.range(N))
        prior = vae_tf.StandardNormal(D).distribution(None)
        kl = posterior.kl_divergence(prior)
        self.assertAllGreater(kl, 0.0)
        self.assertAllLess(kl, 1e-2)  # nats
        self.assertLen(set(posterior.mean()[:, 0].numpy()), N)

    def test_other_rows_and_their_moments_stay_as_they_are(self):
        before = self.table.get_weights()
        numbers = tf.constant([4, 1])
        rows = self.table.rows(numbers)
        gradient = tf.random.stateless_normal((2, 2 * D), [0, 1])
        self.table.assign(numbers, rows.updated(gradient, 0.1))
        others = [0, 2, 3, 5, 6]
        for old, new in zip(before, self.table.get_weights()):
            self.assertAllEqual(old[others], new[others])
            self.assertNotAllEqual(old[4], new[4])
            self.assertNotAllEqual(old[1], new[1])

    def test_a_first_update_is_a_step_of_the_rate_whenever_it_comes(self):
        # Adam's first step is the sign of the gradient: here, in units of the
        # scale, and whatever other rows have been through.
        numbers = tf.constant([0, 1])
        rows = self.table.rows(numbers)
        gradient = tf.constant([[5.0] * D + [-0.01] * D] * 2)
        for _ in range(3):
            rows = Rows(
                *(
                    tf.concat([new[:1], old[1:]], 0)
                    for old, new in zip(rows, rows.updated(gradient, 0.1))
                )
            )
        self.assertAllEqual(rows.visits, [3, 0])
        after = rows.updated(gradient, 0.1)
        self.assertAllClose(after.loc[1] - rows.loc[1], [0.1] * D, 1e-4)
        self.assertAllClose(after.scale[1], [np.exp(-0.1)] * D, 1e-4)

    def test_updates_climb_to_the_normal_that_has_the_largest_elbo(self):
        # ELBO(q; x) = -KL(q || N(m, s^2)) + log p(x), largest at q = N(m, s^2).
        loc, scale = tf.constant([[0.5, -2.0, 3.0]]), [[0.1, 1.5, 0.4]]
        rows = self.table.rows(tf.constant([2]))

        @tf.function
        def climbed(rows, rate):
            with tf.GradientTape() as tape:
                step = tf.zeros_like(rows.mean)
                tape.watch(step)
                q = rows.moved(step)
                kl = 0.5 * tf.reduce_sum(
                    (q.scale / scale) ** 2
                    + ((q.loc - loc) / scale) ** 2
                    - 1
                    - 2 * tf.math.log(q.scale / scale)
                )
            return rows.updated(-tape.gradient(kl, step), rate)

        for number in range(200):
            rows = climbed(rows, tf.constant(0.2 * (1 - number / 200)))
        self.assertAllClose(rows.loc, loc, atol=0.02)
        self.assertAllClose(rows.scale, scale, rtol=0.05)

    def test_an_image_has_no_row(self):
        for images in (tf.zeros((2, 4, 3, 1)), np.zeros((2, 1), np.int32)):
            with self.assertRaisesRegex(
                vae_tf.UserError, r"^images: expected numbers.*vae_tf\.infer"
            ) as caught:
                self.table(images)
            self.assertNotIn("\n", str(caught.exception))
