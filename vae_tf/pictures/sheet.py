"""Means of p(x|z) decoded over the plane of latent space, and the points in it:
what a page that has no model shows under a pointer.
"""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from vae_tf.inference.held_out import validation_posterior
from vae_tf.pictures.snapshots import (
    BATCH_SIZE,
    MAX_PIXELS,
    HeldOut,
    Snapshot,
    stored,
)
from vae_tf.vae import VAE

LIMIT = 3.5  # standard deviations of N(0, I) that are shown in any case
MAX_POINTS = 2000
MAX_TILE = 64  # pixels of a decoded mean along its longer side
# Values of z along an axis. So few of the largest tiles fit however little
# they compress.
FEWEST, MOST = 7, 33
MOST_OF_A_LINE = 129
MAX_BYTES = 680_000  # of the image of all tiles; a third more as text
MAX_DECODED = 64  # at a time


class Sheet(NamedTuple):
    """A rectangle of the plane: points, and what the decoder makes of z at each
    node of a grid, borders included.
    """

    latent_dim: int
    low: np.ndarray  # the rectangle's lower left corner [2]
    high: np.ndarray  # its upper right one [2]
    tiles: np.ndarray  # uint8 [R, C, h, w, channels]; the top row comes first
    pixels: np.ndarray  # an image's height and width [2], before they are h, w
    points: np.ndarray  # [N, 2], as in a snapshot, of some thousand at most
    labels: np.ndarray  # [N], or [0] where there are none
    prior_points: np.ndarray  # [M, 2]; [0, 2] for N(0, I)

    def save(self, path: pathlib.Path) -> None:
        """Writes it to an `.npz` file."""
        np.savez_compressed(path, **self._asdict())

    @classmethod
    def load(cls, path: pathlib.Path) -> "Sheet":
        """Reads what `save` wrote.

        Raises:
          UserError: the file is damaged.
        """
        values: dict[str, Any] = stored(path, cls._fields)
        return cls(**values | {"latent_dim": int(values["latent_dim"])})

    def png(self) -> bytes:
        """All tiles, side by side, as the content of a PNG file."""
        return _png(self.tiles)


def take(vae: VAE, held: HeldOut, snapshot: Snapshot) -> Sheet:
    """The sheet of a model, as fine as `MAX_BYTES` allow.

    z is that of the plane's point where D <= 2. A wider z is at that point in
    the snapshot's plane, and across it at the mean of the posterior's means.

    Args:
      vae: the model.
      held: images that the snapshot was taken of.
      snapshot: of this very model.
    """
    low, high = rectangle(snapshot)
    latent_dim = len(snapshot.plane)
    center = np.zeros(latent_dim, np.float32)
    if latent_dim > 2:
        center = _mean_of_means(vae, held)

    def decoded(count: int) -> np.ndarray:
        rows = 1 if latent_dim == 1 else count
        across = np.linspace(low[0], high[0], count)
        up = np.linspace(low[1], high[1], rows)
        nodes = np.stack(np.meshgrid(across, up[::-1]), -1)
        z = center + (nodes - center @ snapshot.plane) @ snapshot.plane.T
        tiles = _means(vae, z.reshape(-1, latent_dim).astype(np.float32))
        return tiles.reshape(rows, count, *tiles.shape[1:])

    tiles = decoded(FEWEST)
    num_tiles = math.prod(tiles.shape[:2])
    affordable = int(0.9 * MAX_BYTES * num_tiles / len(_png(tiles)))
    count = min(math.isqrt(affordable), MOST)
    if latent_dim == 1:
        count = min(affordable, MOST_OF_A_LINE)
    while count > FEWEST:
        finer = decoded(count)
        if len(_png(finer)) <= MAX_BYTES:
            tiles = finer
            break
        count -= 2
    kept = _thinned(np.flatnonzero(np.isfinite(snapshot.points).all(1)))
    return Sheet(
        latent_dim,
        low,
        high,
        tiles,
        np.array(vae.decoder.image_shape[:2]),
        snapshot.points[kept],
        snapshot.labels[kept] if len(snapshot.labels) else snapshot.labels,
        _thinned(snapshot.prior_points),
    )


def _thinned(rows: np.ndarray) -> np.ndarray:
    """`MAX_POINTS` of the rows at most, from the first to the last one: the
    order of images is an axis where there is one dimension.
    """
    places = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS))
    return rows[places.astype(int)]


def rectangle(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Corners, lower left and upper right `[2]`, of what holds every point, and
    N(0, I) where that is the prior: a square but for a single dimension.
    """
    within = np.concatenate([snapshot.points, snapshot.prior_points])
    within = within[np.isfinite(within).all(1)]
    if not len(snapshot.prior_points):
        within = np.concatenate([within, [[-LIMIT] * 2, [LIMIT] * 2]])
    low = np.floor(2 * within.min(0)) / 2
    high = np.ceil(2 * within.max(0)) / 2
    if len(snapshot.plane) > 1:
        middle, reach = (low + high) / 2, (high - low).max() / 2
        low, high = middle - reach, middle + reach
    return low, high


def _mean_of_means(vae: VAE, held: HeldOut) -> np.ndarray:
    """The mean of q(z|x)'s means over the images held out, `[D]`."""
    means = [
        validation_posterior(
            vae, tf.constant(held.images[first : first + BATCH_SIZE]), first
        ).mean()
        for first in range(0, len(held.images), BATCH_SIZE)
    ]
    return np.concatenate(means).mean(0)


def _means(vae: VAE, z: np.ndarray) -> np.ndarray:
    """Means of p(x|z) for z `[N, D]`, uint8 `[N, h, w, channels]`: those of
    large images averaged down to `MAX_TILE` pixels.
    """
    height, width = vae.decoder.image_shape[:2]
    share = min(1, MAX_TILE / max(height, width))
    size = [max(1, round(share * side)) for side in (height, width)]
    affordable = max(1, MAX_PIXELS // math.prod(vae.decoder.image_shape))
    step = min(MAX_DECODED, affordable)
    tiles = []
    for first in range(0, len(z), step):
        means = vae.decoder(tf.constant(z[first : first + step])).mean()
        if share < 1:
            means = tf.image.resize(means, size, "area")
        tiles.append(np.round(255 * np.clip(means, 0, 1)).astype(np.uint8))
    return np.concatenate(tiles)


def _png(tiles: np.ndarray) -> bytes:
    from vae_tf.pictures import figures  # It draws: see `gallery`.

    picture = figures.mosaic(tiles)
    if picture.shape[-1] == 1:
        picture = picture[..., 0]
    return figures.png(Image.fromarray(picture))
