"""q(z|x) of images that theta was not trained on, and what the model is worth
on them: an encoder's, or without one, that of `infer`."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.evaluation.estimates import Estimates
from vae_tf.inference import weights
from vae_tf.inference.local import Local, infer
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.vae import VAE


def posterior_of(vae: VAE, images: tf.Tensor) -> tfd.Distribution:
    """q(z|x) of any images `[B, H, W, C]`, batch `[B]`, event `[D]`."""
    if isinstance(vae, LocalVAE):
        return _inferred(vae, images).posterior
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
) -> tuple[Estimates, tfd.Distribution]:
    """`importance.evaluate` of a model without an encoder, with the posteriors
    that `infer` finds, from which z is drawn.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`, N in all, as many as memory
        takes.
      num_importance_samples: K.
      seed: of the draws.
      verbose: 1 shows a progress bar.

    Returns:
      Estimates, `[N]` each, in nats, and the posteriors, batch `[N]`, event
        `[D]`.
    """
    images = tf.concat(list(dataset), axis=0)
    local = _inferred(vae, images, seed, verbose)
    estimates = weights.estimate(
        vae,
        images,
        local.family,
        local.parameters,
        num_importance_samples,
        seed,
    )
    return estimates, local.posterior


def _inferred(
    vae: LocalVAE, images: tf.Tensor, seed: int = 0, verbose: int = 0
) -> Local:
    """What `infer` finds where no encoder says where to start."""
    return infer(vae, images, "mean_field", "prior", seed=seed, verbose=verbose)
