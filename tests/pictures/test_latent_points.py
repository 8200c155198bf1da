import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from scipy import stats

from vae_tf.pictures import latent_points


class LatentPointsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(2, 5, 20)
    def test_the_corners_of_the_grid_are_exactly_3(self, side):
        grid = latent_points.grid(latent_points.axis(side))
        self.assertEqual(grid.shape, (side, side, 2))
        # As a picture shows them: the first row is the top one.
        self.assertEqual(tuple(grid[0, 0]), (-3.0, 3.0))
        self.assertEqual(tuple(grid[0, -1]), (3.0, 3.0))
        self.assertEqual(tuple(grid[-1, 0]), (-3.0, -3.0))
        self.assertEqual(tuple(grid[-1, -1]), (3.0, -3.0))

    def test_equal_spacing(self):
        values = latent_points.axis(20)
        self.assertAllClose(np.diff(values), np.full(19, 6 / 19), 1e-6)

    def test_equal_probability(self):
        values = latent_points.axis(20, "probability")
        masses = np.diff(stats.norm.cdf(values))
        self.assertAllClose(masses, np.full(19, 1 / 20), 1e-5)
        self.assertAllClose(values, -values[::-1])

    def test_a_traversal_changes_one_dimension(self):
        z = np.array([0.1, 0.2, 0.3], np.float32)
        values = latent_points.axis(7)
        points = latent_points.traversals(z, values)
        self.assertEqual(points.shape, (3, 7, 3))
        for dimension in range(3):
            expected = np.tile(z, (7, 1))
            expected[:, dimension] = values
            self.assertAllEqual(points[dimension], expected)

    @parameterized.parameters("linear", "spherical")
    def test_interpolations_start_and_stop_where_they_should(self, path):
        start, stop = np.random.default_rng(0).normal(size=(2, 6))
        points = latent_points.interpolation(start, stop, 9, path)
        self.assertAllClose(points[[0, -1]], [start, stop], 1e-5)

    def test_linear_is_straight_and_even(self):
        start, stop = np.random.default_rng(0).normal(size=(2, 6))
        points = latent_points.interpolation(start, stop, 9)
        steps = np.diff(points, axis=0)
        self.assertAllClose(steps, np.tile((stop - start) / 8, (8, 1)), 1e-5)

    def test_spherical_turns_evenly_in_the_plane_of_its_ends(self):
        start, stop = np.array([3.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
        points = latent_points.interpolation(start, stop, 7, "spherical")
        self.assertAllClose(
            np.linalg.norm(points, axis=1), np.linspace(3, 1, 7), 1e-5
        )
        angles = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
        self.assertAllClose(angles, np.linspace(0, 90, 7), 1e-4)
        self.assertAllEqual(points[:, 2], np.zeros(7))

    @parameterized.parameters(2.0, -1.0, 0.0)
    def test_spherical_is_straight_where_there_is_no_arc(self, factor):
        start = np.array([1.0, 2.0, 3.0])
        points = latent_points.interpolation(
            start, factor * start, 5, "spherical"
        )
        straight = latent_points.interpolation(start, factor * start, 5)
        self.assertAllEqual(points, straight)

    def test_the_plane_is_that_of_the_largest_variance(self):
        generator = np.random.default_rng(0)
        basis, _ = np.linalg.qr(generator.normal(size=(6, 6)))
        scales = np.array([0.1, 5.0, 0.2, 3.0, 0.1, 0.3])
        means = 7.0 + generator.normal(size=(4000, 6)) * scales @ basis.T
        plane = latent_points.principal_plane(means)
        self.assertAllClose(plane.T @ plane, np.eye(2), atol=1e-6)
        expected = basis[:, [1, 3]]
        self.assertAllClose(np.abs(plane.T @ expected), np.eye(2), atol=0.05)

    def test_a_single_point_has_some_plane(self):
        previous = np.linalg.qr(np.arange(8.0).reshape(4, 2) ** 2)[0]
        for before in (None, previous):
            plane = latent_points.principal_plane(np.ones((1, 4)), before)
            self.assertAllClose(plane.T @ plane, np.eye(2), atol=1e-6)

    def test_the_plane_turns_to_the_one_before(self):
        means = np.random.default_rng(0).normal(size=(500, 4)) * [4, 3, 1, 1]
        plane = latent_points.principal_plane(means)
        turned = plane @ np.array([[0.0, 1.0], [-1.0, 0.0]])
        found = latent_points.principal_plane(means, turned)
        self.assertAllClose(found, turned, atol=1e-6)
        # It stays the same plane.
        other = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 2)))[0]
        found = latent_points.principal_plane(means, other)
        self.assertAllClose(found @ found.T, plane @ plane.T, atol=1e-6)

    def test_refuses(self):
        with self.assertRaisesRegex(ValueError, "spacing: .* received 'log'"):
            latent_points.axis(3, "log")
        with self.assertRaisesRegex(ValueError, "path: .* received 'curved'"):
            latent_points.interpolation(np.ones(2), np.ones(2), 3, "curved")
