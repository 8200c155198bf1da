"""q(z|x) of images that theta was not trained on, and what the model is worth
on them: an encoder's, or without one, that of `infer`."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.evaluation.importance import Estimates
from vae_tf.inference.gaps import estimate_with
from vae_tf.inference.local import Local, infer
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.vae import VAE


def posterior_of(vae: VAE, images: tf.Tensor) -> tfd.Distribution:
    """q(z|x) of any images `[B, H, W, C]`, batch `[B]`, event `[D]`."""
    if isinstance(vae, LocalVAE):
        return _inferred(vae, images, 0).posterior
    return vae.encoder(images)


def validation_posterior(
    vae: VAE, images: tf.Tensor, first: int
) -> tfd.Distribution:
    """q(z|x) of validation images from number `first` on: of a `LocalVAE`,
    their rows as training has left them, which costs nothing.
    """
    if isinstance(vae, LocalVAE):
        return vae.held_out(tf.range(first, first + len(images)))
    return vae.encoder(images)


def evaluate(
    vae: LocalVAE,
    dataset: tf.data.Dataset,
    num_importance_samples: int,
    seed: int,
    verbose: int = 0,
) -> tuple[Estimates, np.ndarray]:
    """`importance.evaluate` of a model without an encoder: the ELBO is that of
    `infer`'s posteriors, log p(x) is estimated with them as the proposal.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`.
      num_importance_samples: K.
      seed: of the draws.
      verbose: 1 shows a progress bar.

    Returns:
      Estimates of N images, `[N]` each, in nats, and one z of each, `[N, D]`.
    """
    batches: list[Estimates] = []
    points: list[np.ndarray] = []
    bar = keras.utils.Progbar(len(dataset), verbose=verbose)
    for number, images in enumerate(dataset):
        local = _inferred(vae, images, seed)
        first = sum(map(len, points))
        batches.append(
            estimate_with(
                vae, images, local, num_importance_samples, seed, first
            )
        )
        points.append(local.posterior.sample(seed=[seed, number]).numpy())
        bar.add(1)
    estimates = Estimates(*map(np.concatenate, zip(*batches, strict=True)))
    return estimates, np.concatenate(points)


def _inferred(vae: LocalVAE, images: tf.Tensor, seed: int) -> Local:
    return infer(vae, images, family="mean_field", start="prior", seed=seed)
