import numpy as np
import tensorflow as tf
from scipy import stats

from vae_tf.explorer import planes
from vae_tf.settings import UserError


class PlanesTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.generator = np.random.default_rng(0)

    def test_two_dimensions(self):
        z = self.generator.standard_normal((5, 4))
        plane = planes.coordinates(2, 0, 4)
        self.assertAllEqual(plane.of(z), z[:, [2, 0]])

    def test_one_dimension_has_no_height(self):
        z = self.generator.standard_normal((5, 1))
        plane = planes.coordinates(0, 0, 1)
        self.assertAllEqual(plane.of(z), np.hstack([z, 0 * z]))

    def test_refuses_what_are_no_two_dimensions(self):
        for x, y in ((0, 0), (0, 4), (-1, 0)):
            with self.assertRaisesRegex(UserError, "x, y: expected two dim"):
                planes.coordinates(x, y, 4)

    def test_principal_plane_keeps_the_most_variance(self):
        scales = np.array([0.1, 3.0, 0.2, 2.0])
        means = 5 + scales * self.generator.standard_normal((500, 4))
        plane = planes.principal(means)
        self.assertAllClose(plane.axes @ plane.axes.T, np.eye(2))
        inside = plane.of(means)
        self.assertAllClose(inside.mean(0), [0, 0], atol=1e-9)
        eigenvalues = np.linalg.eigvalsh(np.cov(means.T, ddof=0))
        self.assertAllClose(inside.var(0).sum(), eigenvalues[-2:].sum())

    def test_covariances_are_those_of_projected_draws(self):
        plane = planes.principal(self.generator.standard_normal((9, 3)))
        stddev = np.array([[0.5, 1.0, 2.0]])
        draws = stddev * self.generator.standard_normal((200_000, 3))
        found = np.cov(plane.of(draws).T)
        (covariance,) = plane.covariances(stddev)
        self.assertAllClose(found, covariance, atol=0.03)

    def test_density_is_the_mean_of_gaussians(self):
        points = self.generator.standard_normal((300, 2))
        square = self.generator.standard_normal((300, 2, 2))
        covariances = square @ square.swapaxes(1, 2) + 0.1 * np.eye(2)
        u, v = np.linspace(-2, 2, 5), np.linspace(-1, 3, 4)
        found = planes.density(points, covariances, u, v)
        expected = [
            [
                np.mean(
                    [
                        stats.multivariate_normal(mean, cov).pdf((x, y))
                        for mean, cov in zip(points, covariances)
                    ]
                )
                for x in u
            ]
            for y in v
        ]
        self.assertAllClose(found, expected, rtol=1e-4)

    def test_contours_hold_their_share(self):
        # Of N(0, I), the disc of radius sqrt(-2 log(1 - p)) holds p.
        points, covariances = np.zeros((1, 2)), np.eye(2)[np.newaxis]
        for found in planes.contours(points, covariances, 5.0):
            (line,) = found["lines"]
            radius = np.sqrt(-2 * np.log(1 - found["mass"]))
            self.assertAllClose(
                np.linalg.norm(line, axis=1), [radius] * len(line), rtol=0.03
            )

    def test_the_page_shows_nearly_all_points(self):
        self.assertEqual(planes.limit_of(np.zeros((10, 2))), 3.5)
        far = self.generator.normal(0, 10, (1000, 2))
        limit = planes.limit_of(far)
        self.assertGreater(np.mean(np.abs(far).max(1) < limit), 0.98)
        far[0] = np.nan
        self.assertTrue(np.isfinite(planes.limit_of(far)))


if __name__ == "__main__":
    tf.test.main()
