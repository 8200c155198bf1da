"""Points of latent space worth decoding: grids, traversals, interpolations; and
the plane in which a wide latent space is looked at. NumPy only.
"""

import statistics

import numpy as np

from vae_tf.settings import UserError

GRID_LIMIT = 3.0  # standard deviations of p(z) = N(0, I)
SPACINGS = ("equal", "probability")
PATHS = ("linear", "spherical")
SHOWS = ("samples", "means")  # of p(x|z), at such points


def axis(num_points: int, spacing: str = "equal") -> np.ndarray:
    """Values along an axis of a grid, `[num_points]`, rising.

    "equal": from -3 to 3, both included. "probability": the quantiles of N(0,
    1) at (i + 1/2) / num_points, so that each value stands for as much of the
    prior as the next.

    Raises:
      UserError: `spacing` is neither.
    """
    if spacing not in SPACINGS:
        raise UserError(
            f"spacing: expected one of {', '.join(SPACINGS)}, received "
            f"{spacing!r}."
        )
    if spacing == "equal":
        values = np.linspace(-GRID_LIMIT, GRID_LIMIT, num_points)
    else:
        quantile = statistics.NormalDist().inv_cdf
        values = np.array(
            [quantile((i + 0.5) / num_points) for i in range(num_points)]
        )
    return values.astype(np.float32)


def grid(values: np.ndarray) -> np.ndarray:
    """z `[R, R, 2]` over two axes of the same values `[R]`, as a picture shows
    it: z_1 rises from left to right, z_2 from the bottom row to the top one.
    """
    return np.stack(np.meshgrid(values, values[::-1]), axis=-1)


def traversals(z: np.ndarray, values: np.ndarray) -> np.ndarray:
    """z `[D]` with each dimension in turn set to each of the values `[V]`:
    `[D, V, D]`.
    """
    dimensions = np.arange(len(z))
    points = np.tile(z, (len(z), len(values), 1))
    points[dimensions, :, dimensions] = values
    return points


def interpolation(
    start: np.ndarray, stop: np.ndarray, num_points: int, path: str = "linear"
) -> np.ndarray:
    """Points `[num_points, D]` from `start` to `stop` `[D]`, both included.

    "linear" goes straight, through where a normal prior of many dimensions has
    hardly any mass. "spherical" turns at an even pace about the origin, its
    length going evenly from one to the other: for u, v of length 1 and w the
    angle between them, the direction is

    (sin((1 - t) w) u + sin(t w) v) / sin(w)

    White 2016, arXiv:1609.04468.

    Raises:
      UserError: `path` is neither.
    """
    if path not in PATHS:
        raise UserError(
            f"path: expected one of {', '.join(PATHS)}, received {path!r}."
        )
    t = np.linspace(0, 1, num_points)[:, np.newaxis]
    lengths = np.linalg.norm(start), np.linalg.norm(stop)
    product = lengths[0] * lengths[1]
    cosine = np.dot(start, stop) / product if product > 0 else 1.0
    angle = np.arccos(np.clip(cosine, -1, 1))
    if path == "linear" or np.sin(angle) < 1e-4:
        # Ends in line with the origin have no arc between them, or no one arc.
        return ((1 - t) * start + t * stop).astype(np.float32)
    direction = (
        np.sin((1 - t) * angle) * start / lengths[0]
        + np.sin(t * angle) * stop / lengths[1]
    ) / np.sin(angle)
    length = (1 - t) * lengths[0] + t * lengths[1]
    return (length * direction).astype(np.float32)


def principal_plane(
    means: np.ndarray, previous: np.ndarray | None = None
) -> np.ndarray:
    """Orthonormal columns `[D, 2]` along which the means `[N, D]` vary most.

    Args:
      means: of q(z|x), a row per image.
      previous: a plane of another time, to which this one is turned within
        itself (orthogonal Procrustes), so that pictures of the two compare.
    """
    deviations = means - means.mean(0)
    if len(means) == 1:  # A single point has no plane: any will do.
        deviations = np.zeros((2, means.shape[1]))
    _, _, rows = np.linalg.svd(deviations, full_matrices=False)
    plane = rows[:2].T
    if previous is not None:
        left, _, right = np.linalg.svd(plane.T @ previous)
        plane = plane @ left @ right
    return plane
