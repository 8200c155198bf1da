import numpy as np
import tensorflow as tf
from scipy import stats

from vae_tf.evaluation import hamiltonian
from vae_tf.noise import standard_normal, uniform

SHARE = tf.constant(0.5)


def log_densities(place):
    """r = N(0, I), and w of which r w^b is N(0.8, I / 5) at b = 1/2."""
    log_start = -0.5 * tf.reduce_sum(place**2, axis=-1)
    return log_start, -4.0 * tf.reduce_sum((place - 1) ** 2, axis=-1)


def draws(seed, count=5000):
    """Of r w^b, momenta and uniform draws, for chains of two images."""
    shape = (count, 2, 3)
    exact = 0.8 + 5**-0.5 * standard_normal(shape, [seed, 0])
    momentum = standard_normal(shape, [seed, 1])
    return exact, momentum, uniform(shape[:2], [seed, 2], 23)


class StepTest(tf.test.TestCase):
    def test_leaves_the_density_as_it_is(self):
        # One image in steps so long that the leapfrog's error matters.
        place, _, _ = draws(1)
        at = hamiltonian.point(log_densities, place)
        for number in range(8):
            _, momentum, chance = draws(2 + number)
            at, accepted, probability = hamiltonian.step(
                log_densities,
                at,
                SHARE,
                tf.constant([0.6, 0.15]),
                momentum,
                chance,
            )
        share = np.mean(accepted, axis=0)
        self.assertAllInRange(share[:1], 0.5, 0.9)
        self.assertGreater(share[1], 0.95)
        self.assertAllClose(share, np.mean(probability, axis=0), atol=0.02)
        found = (at.place.numpy() - 0.8) * 5**0.5
        for image in range(2):
            values = found[:, image].ravel()
            self.assertGreater(stats.kstest(values, "norm").pvalue, 1e-3)
            # They have moved, and not together.
            before = (place[:, image].numpy().ravel() - 0.8) * 5**0.5
            self.assertLess(abs(np.mean(values * before)), 0.1)

    def test_the_way_back_is_the_way_there(self):
        # By hand, and from there with the opposite momentum.
        place, momentum, _ = draws(1, 50)
        step_size, always = tf.constant([0.7, 0.4]), tf.zeros((50, 2))
        before = hamiltonian.point(log_densities, place)
        there, accepted, _ = hamiltonian.step(
            log_densities, before, SHARE, step_size, momentum, always
        )
        self.assertAllEqual(accepted, np.ones((50, 2)))
        at, speed, size = place, momentum, step_size[:, tf.newaxis]
        for _ in range(hamiltonian.LEAPFROG_STEPS):
            speed = speed + size / 2 * (4 - 5 * at)
            at = at + size * speed
            speed = speed + size / 2 * (4 - 5 * at)
        self.assertAllClose(there.place, at, 1e-4, 1e-4)
        back, _, _ = hamiltonian.step(
            log_densities, there, SHARE, step_size, -speed, always
        )
        for found, expected in zip(back, before):
            self.assertAllClose(found, expected, 1e-3, 1e-3)

    def test_short_steps_are_always_accepted(self):
        place, momentum, chance = draws(1, 200)
        _, accepted, probability = hamiltonian.step(
            log_densities,
            hamiltonian.point(log_densities, place),
            SHARE,
            tf.constant([1e-2, 0.0]),
            momentum,
            chance,
        )
        self.assertAllInRange(probability, 0.999, 1.0)
        self.assertAllEqual(accepted, np.ones((200, 2)))

    def test_a_proposal_without_density_is_not_accepted(self):
        def broken(place):
            log_start, log_weight = log_densities(place)
            beyond = tf.reduce_max(place, axis=-1) > 1.0
            return log_start, tf.where(beyond, np.nan, log_weight)

        place, momentum, chance = draws(1, 500)
        place = tf.minimum(place, 0.9)
        after, accepted, probability = hamiltonian.step(
            broken,
            hamiltonian.point(broken, place),
            SHARE,
            tf.constant([0.3, 0.3]),
            momentum,
            chance,
        )
        for part in (after, probability):
            for values in tf.nest.flatten(part):
                self.assertAllEqual(np.isnan(values), np.zeros(values.shape))
        self.assertAllInRange(np.mean(accepted), 0.05, 0.9)
        stayed = ~accepted.numpy()
        self.assertAllEqual(after.place[stayed], place[stayed])
