"""The plane of latent space that the page shows: two dimensions of z, or the
plane along which the posterior means vary most. NumPy only.
"""

from typing import Any, NamedTuple

import contourpy
import numpy as np

from vae_tf.pictures.latent_points import principal_plane
from vae_tf.settings import UserError

CELLS = 96  # of a density, along a side
# That smooths it: 2,000 images are not all there are. At least a cell.
BANDWIDTH = 0.12
MASSES = (0.95, 0.8, 0.5)  # of the density, inside each contour
LIMIT = 3.5  # from the middle to a side, at least
AT_ONCE = 256  # points whose densities are summed together


class Plane(NamedTuple):
    """z = origin + u axes[0] + v axes[1], for (u, v) on the page."""

    origin: np.ndarray  # [D]
    axes: np.ndarray  # orthonormal rows [2, D]; where D = 1, the second is 0

    def of(self, z: np.ndarray) -> np.ndarray:
        """z `[N, D]` -> (u, v) `[N, 2]`, by orthogonal projection."""
        return (z - self.origin) @ self.axes.T

    def covariances(self, stddev: np.ndarray) -> np.ndarray:
        """Standard deviations `[N, D]` of independent dimensions -> `[N, 2, 2]`
        of (u, v).
        """
        return np.einsum("ad,nd,bd->nab", self.axes, stddev**2, self.axes)


def coordinates(first: int, second: int, latent_dim: int) -> Plane:
    """The plane of z_first (u) and z_second (v), through 0.

    Raises:
      UserError: these are not two of the dimensions 0 to `latent_dim` - 1; a
        single dimension is 0 and 0.
    """
    known = range(latent_dim)
    alike = first == second and latent_dim > 1
    if first not in known or second not in known or alike:
        raise UserError(
            f"x, y: expected two dimensions of 0 to {latent_dim - 1}, received "
            f"{first} and {second}."
        )
    axes = np.zeros((2, latent_dim))
    axes[1, second] = axes[0, first] = 1
    if latent_dim == 1:
        axes[1] = 0
    return Plane(np.zeros(latent_dim), axes)


def principal(means: np.ndarray) -> Plane:
    """The plane through the middle of the posterior means `[N, D]`, D > 1,
    along which they vary most.
    """
    return Plane(means.mean(0), principal_plane(means).T)


def density(
    points: np.ndarray, covariances: np.ndarray, u: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """The mean of N(points, covariances) at each of u x v.

    Args:
      points: `[N, 2]`.
      covariances: `[N, 2, 2]`.
      u, v: `[U]`, `[V]`.

    Returns:
      `[V, U]`.
    """
    total = np.zeros((len(v), len(u)))
    for first in range(0, len(points), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        precisions = np.linalg.inv(covariances[some])
        scale = np.sqrt(np.linalg.det(precisions)) / (2 * np.pi)
        # -(d' precision d) / 2 + log scale, of d = (du, dv), as sums of outer
        # products: [n, V, U].
        du = (u - points[some, :1])[:, np.newaxis, :]
        dv = (v - points[some, 1:])[:, :, np.newaxis]
        uu, uv, vv = (
            precisions[:, a, b, np.newaxis, np.newaxis]
            for a, b in ((0, 0), (0, 1), (1, 1))
        )
        power = np.log(scale)[:, np.newaxis, np.newaxis] - vv * dv**2 / 2
        power = (power - uu * du**2 / 2).astype(np.float32)
        power -= (uv * dv).astype(np.float32) * du.astype(np.float32)
        total += np.exp(power, out=power).sum(0)
    return total / len(points)


def contours(
    points: np.ndarray, covariances: np.ndarray, limit: float
) -> list[dict[str, Any]]:
    """Lines round the smallest regions of the square -limit to limit that hold
    `MASSES` of what the density has there: [{"mass", "lines"}], a line being a
    list of (u, v).
    """
    axis = np.linspace(-limit, limit, CELLS)
    bandwidth = max(BANDWIDTH, axis[1] - axis[0])
    smoothed = covariances + bandwidth**2 * np.eye(2)
    height = density(points, smoothed, axis, axis)
    falling = np.sort(height, axis=None)[::-1]
    reached = np.cumsum(falling) / falling.sum()
    generator = contourpy.contour_generator(axis, axis, height)
    return [
        {
            "mass": mass,
            "lines": [
                np.round(np.asarray(line, float), 3).tolist()
                for line in generator.lines(
                    falling[np.searchsorted(reached, mass)]
                )
            ],
        }
        for mass in MASSES
    ]


def limit_of(points: np.ndarray) -> float:
    """How far the page shows: all but the furthest hundredth of the points."""
    distances = np.abs(points).max(-1)
    distances = distances[np.isfinite(distances)]
    furthest = np.quantile(distances, 0.99) if len(distances) else 0
    return float(np.round(max(LIMIT, 1.1 * furthest), 2))
