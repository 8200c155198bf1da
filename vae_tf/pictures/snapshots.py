"""A model and held-out images -> the arrays that its pictures are made of."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vae_tf import objectives
from vae_tf.data.files import unpacked
from vae_tf.data.pipeline import Data
from vae_tf.inference.held_out import posterior_of, validation_posterior
from vae_tf.noise import key, standard_normal
from vae_tf.pictures import latent_points
from vae_tf.priors import StandardNormal
from vae_tf.settings import UserError
from vae_tf.vae import VAE

SPLIT = "validation"  # Held-out images of a run; the test split is for the end.
MIN_IMAGES, MAX_IMAGES = 500, 5000
MAX_BYTES = 2**28  # of a snapshot that is read
MAX_PIXELS = 16_000_000  # of all of them; what a picture may cost
BATCH_SIZE = 1000
NUM_NEIGHBOURS = 5
NUM_PRIOR_POINTS = 2000
NUM_RECONSTRUCTIONS = 10
MAX_SHEET = 560  # pixels of a grid or sheet along its longer side


class HeldOut(NamedTuple):
    """Images of the validation split, and their classes."""

    images: np.ndarray  # [N, H, W, C] in [0, 1]
    labels: np.ndarray | None  # [N]


class Snapshot(NamedTuple):
    """What a model makes of held-out images, N of them, and of its prior."""

    epoch: int
    elbo: float  # of these images, one draw each, nats per image
    labels: np.ndarray  # [N], or [0] where there are none
    points: np.ndarray  # one z ~ q(z|x) for each image, in the plane: [N, 2]
    plane: np.ndarray  # its columns, orthonormal, [D, 2]
    prior_points: np.ndarray  # z ~ p(z) in it, [M, 2]; [0, 2] for N(0, I)
    accuracy: float  # see `judged`; NaN without classes
    per_dimension: np.ndarray  # [D], see `per_dimension_name`
    factorizes: bool  # whether q(z|x) and p(z) do
    prior_predictive: np.ndarray  # uint8 [R, C, H, W, channels]
    values: np.ndarray  # of z along both axes of a grid [R]; [0] of a sheet
    images: np.ndarray  # a few of those held out, [n, H, W, C]
    reconstructions: np.ndarray  # [n, H, W, C]

    @property
    def per_dimension_name(self) -> str:
        """What `per_dimension` is."""
        if self.factorizes:
            return "KL of each dimension (nats)"
        return "variance of the posterior's mean"

    def save(self, path: pathlib.Path) -> None:
        """Writes it to an `.npz` file."""
        np.savez_compressed(path, **self._asdict())

    @classmethod
    def load(cls, path: pathlib.Path) -> "Snapshot":
        """Reads what `save` wrote.

        Raises:
          UserError: the file is damaged.
        """
        values: dict[str, Any] = stored(path, cls._fields)
        return cls(
            **values
            | {
                "epoch": int(values["epoch"]),
                "elbo": float(values["elbo"]),
                "accuracy": float(values["accuracy"]),
                "factorizes": bool(values["factorizes"]),
            }
        )


def stored(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names in an `.npz` file.

    Raises:
      UserError: the file is damaged.
    """
    try:
        arrays = unpacked(path, MAX_BYTES)
        return {name: arrays[name] for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: expected what was drawn, received a damaged file "
            f"({error})."
        ) from None


def held_out(data: Data) -> HeldOut:
    """Some thousand images of the validation split, fewer of large ones."""
    affordable = MAX_PIXELS // int(np.prod(data.image_shape))
    count = max(MIN_IMAGES, min(MAX_IMAGES, affordable))
    images = np.concatenate(
        list(data.in_order(SPLIT, BATCH_SIZE, count).as_numpy_iterator())
    )
    labels = data.labels(SPLIT)
    return HeldOut(images, None if labels is None else labels[: len(images)])


def take(vae: VAE, held: HeldOut, epoch: int, *args, **kwargs) -> Snapshot:
    """A snapshot of the model as it is; arguments as of `taken`."""
    return judged(*taken(vae, held, epoch, *args, **kwargs))


def judged(snapshot: Snapshot, z: np.ndarray) -> Snapshot:
    """A snapshot that says how well z `[N, D]` tells classes apart."""
    if not len(snapshot.labels):
        return snapshot
    return snapshot._replace(accuracy=neighbour_accuracy(z, snapshot.labels))


def taken(
    vae: VAE,
    held: HeldOut,
    epoch: int,
    previous: Snapshot | None = None,
    shows: str = "samples",
    spacing: str = "equal",
    seed: int = 0,
) -> tuple[Snapshot, np.ndarray]:
    """A snapshot of the model as it is, which is not yet `judged`, and its z
    `[N, D]`.

    Args:
      vae: the model.
      held: from `held_out`.
      epoch: after which it is taken, 0 before the first.
      previous: whose plane this one's is turned to, where D > 2.
      shows, spacing: see `prior_predictive`.
      seed: of all draws.
    """
    latent_dim = vae.encoder.latent_dim
    factorizes = vae.encoder.factorizes and vae.prior.factorizes
    latents, elbos, means, divergences = [], [], [], []
    for first in range(0, len(held.images), BATCH_SIZE):
        images = tf.constant(held.images[first : first + BATCH_SIZE])
        noise = standard_normal(
            (1, len(images), latent_dim), key("picture", seed, first)
        )
        draws = vae.draws_from(
            validation_posterior(vae, images, first), images, noise
        )
        latents.append(draws.z[0])
        elbos.append(objectives.elbo(draws).elbo)
        if latent_dim > 2 or not factorizes:
            means.append(draws.posterior.mean())
        if factorizes:
            divergences.append(
                objectives.kl_per_dimension(draws.posterior, draws.prior)
            )
    z = np.concatenate(latents)
    prior_z = vae.prior_distribution().sample(NUM_PRIOR_POINTS, seed=[seed, 1])
    if isinstance(vae.prior, StandardNormal) and latent_dim > 1:
        prior_z = prior_z[:0]  # Circles say it better.
    plane = _plane(latent_dim, means, previous)
    points, prior_points = (
        _in_plane(values, plane) for values in (z, prior_z.numpy())
    )
    images, values = prior_predictive(vae, shows, spacing, seed)
    few = held.images[:NUM_RECONSTRUCTIONS]
    codes = validation_posterior(vae, few, 0).mean()
    snapshot = Snapshot(
        epoch=epoch,
        elbo=float(np.concatenate(elbos).mean()),
        labels=np.zeros(0, int) if held.labels is None else held.labels,
        points=points,
        plane=plane,
        prior_points=prior_points,
        accuracy=float("nan"),
        per_dimension=np.concatenate(divergences).mean(0)
        if factorizes
        else np.concatenate(means).var(0),
        factorizes=factorizes,
        prior_predictive=np.round(255 * np.clip(images, 0, 1)).astype(np.uint8),
        values=values,
        images=few,
        reconstructions=vae.decoder(codes).mean().numpy(),
    )
    return snapshot, z


def _plane(latent_dim: int, means: list, previous: Snapshot | None):
    """The plane `[D, 2]` in which z is shown: its own where D = 2."""
    if latent_dim <= 2:
        return np.eye(latent_dim, 2, dtype=np.float32)
    return latent_points.principal_plane(
        np.concatenate(means), None if previous is None else previous.plane
    ).astype(np.float32)


def _in_plane(z: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """z `[N, D]` -> `[N, 2]`; a single latent dimension is spread out over the
    other axis, in the images' order.
    """
    points = (z @ plane).astype(np.float32)
    if len(plane) == 1:
        points[:, 1] = np.linspace(-3, 3, len(points))
    return points


def neighbour_accuracy(z: np.ndarray, labels: np.ndarray) -> float:
    """Share of images, in [0, 1], whose class is that of most of their 5
    nearest neighbours in latent space, each left out of its own vote; NaN where
    there are no 5 others.

    Args:
      z: `[N, D]`.
      labels: integers `[N]`.
    """
    if len(z) <= NUM_NEIGHBOURS:
        return float("nan")
    # Here, because it takes a second, which a first step does not wait for.
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(NUM_NEIGHBOURS).fit(z, labels)
    # Without arguments, a point is no neighbour of its own.
    neighbours = classifier.kneighbors(return_distance=False)
    classes, votes = np.unique(labels, return_inverse=True)
    counts = np.apply_along_axis(
        np.bincount, 1, votes[neighbours], minlength=len(classes)
    )
    return float(np.mean(classes[counts.argmax(1)] == labels))


def prior_predictive(
    vae: VAE, shows: str = "samples", spacing: str = "equal", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What the model takes for images before it has seen one: p(x|z) over a
    grid of z where D = 2, else at draws from p(z).

    Args:
      vae: the model.
      shows: "samples" of p(x|z), or its "means".
      spacing: of the grid, see `latent_points.axis`.
      seed: of the draws.

    Raises:
      UserError: `shows` or `spacing` is unknown.

    Returns:
      Images `[R, R, H, W, C]`, and the grid's values of z along both axes
      `[R]`, or `[0]` where there is no grid.
    """
    if shows not in latent_points.SHOWS:
        raise UserError(
            f"shows: expected one of {', '.join(latent_points.SHOWS)}, "
            f"received {shows!r}."
        )
    latent_dim, image_shape = vae.encoder.latent_dim, vae.decoder.image_shape
    side = max(5, min(20, MAX_SHEET // max(image_shape[:2])))
    if latent_dim == 2:
        values = latent_points.axis(side, spacing)
        z = latent_points.grid(values).reshape(-1, 2)
    else:
        values = np.zeros(0, np.float32)
        z = vae.prior_distribution().sample(side**2, seed=[seed, 2])
    likelihood = vae.decoder(z)
    images = (
        likelihood.sample(seed=[seed, 3])
        if shows == "samples"
        else likelihood.mean()
    )
    return images.numpy().reshape(side, side, *image_shape), values


def traversals(vae: VAE, image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of p(x|z) as one dimension of z at a time leaves the posterior's
    mean: `[D, V, H, W, C]`.

    Args:
      vae: the model.
      image: `[H, W, C]`, whose posterior's mean is where it starts.
      values: that each dimension takes `[V]`.

    Raises:
      UserError: the image is not what `VAE.check_images` expects.
    """
    images = vae.check_images(image[np.newaxis])
    (z,) = posterior_of(vae, images).mean().numpy()
    return vae.decoder(latent_points.traversals(z, values)).mean().numpy()


def interpolations(
    vae: VAE,
    start: np.ndarray,
    stop: np.ndarray,
    num_points: int = 11,
    path: str = "linear",
) -> np.ndarray:
    """Means of p(x|z) on the way from the posterior's mean of one image to that
    of another: `[num_points, H, W, C]`.

    Args:
      vae: the model.
      start, stop: `[H, W, C]`.
      num_points: both ends included.
      path: "linear" or "spherical", see `latent_points.interpolation`.

    Raises:
      UserError: the images are not what `VAE.check_images` expects, or `path`
        is unknown.
    """
    images = vae.check_images(np.stack([start, stop]))
    first, last = posterior_of(vae, images).mean().numpy()
    points = latent_points.interpolation(first, last, num_points, path)
    return vae.decoder(points).mean().numpy()
