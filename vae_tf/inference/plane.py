"""p(z|x) and what stands for it, on a grid: where z has two dimensions."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.vae import VAE

POINTS = 96  # of the grid, along each axis
REACH = 4.0  # standard deviations of q and of p(z) to the border
SEEN = 0.01  # of the highest density: what is above it is inside the grid


class Plane(NamedTuple):
    """Of an image; densities `[G, G]`, rows by z_2, as shares of their highest
    value on the grid.
    """

    z_1: np.ndarray  # [G]
    z_2: np.ndarray  # [G]
    true: np.ndarray  # p(z|x)
    amortized: np.ndarray  # q(z|x) of the encoder
    refined: np.ndarray  # the best q of its family


def planes(vae: VAE, images, refined: tfd.Distribution) -> list[Plane]:
    """p(z|x), known up to p(x) as p(x, z), beside q(z|x) and a better q, for
    each image, where it and they lie.

    Args:
      vae: a model of two latent dimensions.
      images: x `[N, H, W, C]`.
      refined: batch `[N]`, event `[2]`.
    """
    images = vae.check_images(images)
    amortized = vae.encoder(images)
    prior = vae.prior_distribution()

    def log_densities(axes, number):
        """Of p(x, z) and both q `[3, G, G]`, of an image."""
        z = np.stack(np.meshgrid(*axes), -1).astype(np.float32)
        z = np.reshape(z, (-1, 1, 2))
        each = tf.repeat(z, images.shape[0], axis=1)  # a batch of q's own
        found = (
            vae.log_joint(images[number : number + 1], z)[:, 0],
            amortized.log_prob(each)[:, number],
            refined.log_prob(each)[:, number],
        )
        return np.nan_to_num(
            np.reshape(found, (3, POINTS, POINTS)), nan=-np.inf
        )

    def plane(number):
        # First everywhere, because p(z|x) may be where no q is.
        loc, reach = np.array(prior.mean()), REACH * np.array(prior.stddev())
        axes = np.linspace(loc - reach, loc + reach, POINTS).T
        log_joint = log_densities(axes, number)[0]
        seen = np.nonzero(log_joint > log_joint.max() + np.log(SEEN))
        corners = [np.stack([axes[0][seen[1]], axes[1][seen[0]]], -1)]
        corners += [
            (q.mean()[number] + side * q.stddev()[number])[np.newaxis]
            for q in (amortized, refined)
            for side in (-REACH, REACH)
        ]
        within = np.concatenate(corners)
        axes = np.linspace(within.min(0), within.max(0), POINTS).T
        found = log_densities(axes, number)
        shares = np.exp(found - found.max((1, 2), keepdims=True))
        return Plane(*axes, *shares)

    return [plane(number) for number in range(images.shape[0])]
