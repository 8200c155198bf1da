import numpy as np
import tensorflow as tf
from linear import SCALE, grey, linear_vae
from tensorflow_probability import distributions as tfd

from vae_tf.evaluation.linear_gaussian import linear_gaussian
from vae_tf.inference.plane import planes


class PlaneTest(tf.test.TestCase):
    def test_densities_are_those_of_the_closed_form(self):
        vae, weights, offset = linear_vae(strength=1.0, alike=0.6)
        images = grey(3)
        true = linear_gaussian(images, weights, offset, SCALE)
        far = np.array([[3.0, -3.0], [0.0, 0.0], [0.5, 2.0]], np.float32)
        scale = np.array([0.1, 0.4], np.float32)
        refined = tfd.MultivariateNormalDiag(far, np.tile(scale, (3, 1)))
        q = vae.encoder(images)
        found = planes(vae, images, refined)
        self.assertLen(found, 3)
        for n, plane in enumerate(found):
            z = np.stack(np.meshgrid(plane.z_1, plane.z_2), -1)
            for density, loc, covariance in (
                (plane.true, true.loc[n], true.covariance),
                (plane.amortized, q.mean()[n], np.diag(q.variance()[n])),
                (plane.refined, far[n], np.diag(scale**2)),
            ):
                away = z - np.array(loc)
                precision = np.linalg.inv(covariance)
                power = -0.5 * np.einsum(
                    "abi,ij,abj->ab", away, precision, away
                )
                self.assertAllClose(
                    density, np.exp(power - power.max()), atol=2e-3
                )
                # All of it is on the grid, wherever the others are.
                border = np.ones(density.shape, bool)
                border[1:-1, 1:-1] = False
                self.assertLess(density[border].max(), 0.02)
