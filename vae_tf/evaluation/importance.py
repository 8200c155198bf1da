"""What a trained model is worth: the ELBO and log p(x), in nats per image, with
error bars.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_tf.evaluation import growth, pareto
from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.errors_of_means import averages
from vae_tf.evaluation.estimates import Estimates, kept, of_moments
from vae_tf.evaluation.moments import Moments, bound_sizes, importance_moments
from vae_tf.noise import key, standard_normal
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

BATCH_SIZE = 128  # images at once
ROWS_AT_ONCE = 2048  # latent draws decoded together, images times samples


def evaluate(
    vae: VAE,
    dataset: tf.data.Dataset,
    num_importance_samples: int,
    seed: int,
    verbose: int = 0,
    tolerance: float | None = None,
) -> Estimates:
    """`estimate` of every image of a dataset, in its order.

    With a tolerance, images whose standard error of log p(x) is not below it
    have more draws, until it is or K is at most 128,000 (`growth.grow`). To
    stop where the error looks small favours draws that missed large weights:
    log p(x) is then lower, and the stated errors smaller, than at a K that was
    fixed before. Where the weights' tail is light that is less than the error
    itself (a test holds it below the tolerance on a linear-Gaussian model);
    where `pareto_k` is above 0.7, neither is to be trusted.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`, the same at each pass.
      num_importance_samples: K; with a tolerance, that of the beginning, at
        which `bounds` are.
      seed: of the draws of z; the result is a function of it.
      verbose: 1 shows a progress bar.
      tolerance: in nats, or None.
    """
    if len(dataset) == 0:
        raise UserError(NO_IMAGES)
    _check(num_importance_samples)
    length = kept(num_importance_samples)
    if tolerance is not None:
        growth.check(tolerance)
        length = max(length, min(num_importance_samples, kept(growth.MOST)))
    batches: list[Estimates] = []
    left: growth.Unfinished = {}
    bar = keras.utils.Progbar(
        len(dataset), verbose=verbose, stateful_metrics=["log p(x)"]
    )
    for images in dataset:
        first = sum(len(batch.elbo) for batch in batches)
        moments = _moments(
            vae, images, num_importance_samples, seed, first, length
        )
        batches.append(of_moments(moments, num_importance_samples))
        if tolerance is not None:
            left |= growth.unfinished(batches[-1], moments, tolerance, first)
        log_p = np.concatenate(
            [batch.log_marginal_likelihood for batch in batches]
        )
        bar.update(len(batches), [("log p(x)", log_p.mean())])
    estimates = Estimates(*map(np.concatenate, zip(*batches, strict=True)))
    if tolerance is not None:
        for numbers, found in growth.grow(
            vae, dataset, left, num_importance_samples, seed, tolerance, verbose
        ):
            for name, values in found._asdict().items():
                if name != "bounds":
                    getattr(estimates, name)[numbers] = values
    return estimates


def summary(
    estimates: Estimates,
    num_importance_samples: int,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Averages over images, with their errors.

    Args:
      estimates: of any number of images.
      num_importance_samples, tolerance: with which `evaluate` made them.

    Returns:
      A dict of `errors_of_means.averages`; `elbo`, `reconstruction` and `kl`,
      in nats per image; `num_importance_samples`; the median
      `effective_sample_size`; `pareto_k_over_0.7`, the share of images whose
      weights have so heavy a tail that their log p(x) and its error are not to
      be trusted, None with K < 25; and `importance_weighted_bound_by_samples`,
      the mean of log(1/k sum_k w_k) over disjoint groups of k draws and over
      images, by k, with its `_standard_error` over images or None: from k = 1,
      the ELBO, on average higher the larger k (Burda et al. 2015, theorem 1),
      to K.

      With a tolerance, `num_importance_samples` is the largest K of any image,
      and there are `median_num_importance_samples`, `tolerance` and
      `tolerance_not_reached`, the share of images whose standard error is not
      below it.
    """
    count, k = len(estimates.elbo), estimates.pareto_k
    found: dict[str, Any] = {
        **averages(
            estimates.log_marginal_likelihood,
            estimates.variance,
            estimates.bias,
        ),
        "elbo": float(estimates.elbo.mean()),
        "reconstruction": float(estimates.reconstruction.mean()),
        "kl": float(estimates.kl.mean()),
        "num_importance_samples": num_importance_samples,
        "effective_sample_size": float(
            np.median(estimates.effective_sample_size)
        ),
        f"pareto_k_over_{pareto.UNRELIABLE}": float(
            np.mean(k > pareto.UNRELIABLE)
        )
        if k is not None and pareto.tail_length(num_importance_samples)
        else None,
    }
    if estimates.bounds is not None:
        sizes = list(map(str, bound_sizes(num_importance_samples)))
        mean = estimates.bounds.mean(0).tolist()
        error = (
            (estimates.bounds.std(0, ddof=1) / math.sqrt(count)).tolist()
            if count > 1
            else None
        )
        name = "importance_weighted_bound_by_samples"
        found[name] = dict(zip(sizes, mean, strict=True))
        found[f"{name}_standard_error"] = error and dict(
            zip(sizes, error, strict=True)
        )
    if tolerance is not None and estimates.num_samples is not None:
        reached = np.sqrt(estimates.variance) < tolerance
        found |= {
            "num_importance_samples": int(estimates.num_samples.max()),
            "median_num_importance_samples": float(
                np.median(estimates.num_samples)
            ),
            "tolerance": tolerance,
            "tolerance_not_reached": float(np.mean(~reached)),
        }
    return found


def log_marginal_likelihood(
    vae: VAE,
    images,
    num_samples: int = 1000,
    seed: int = 0,
    tolerance: float | None = None,
) -> np.ndarray:
    """Importance-weighted estimate of log p(x) for each image, `[B]`, in nats;
    see `estimate`, and `evaluate` for the tolerance.

    Raises:
      UserError: `num_samples` is below 1, the tolerance is not positive, or the
        images are not what `VAE.check_images` expects.
    """
    found = evaluate(vae, [images], num_samples, seed, tolerance=tolerance)
    return found.log_marginal_likelihood


def estimate(
    vae: VAE, images, num_samples: int, seed: int, first: int = 0
) -> Estimates:
    """log p(x) ~ log(1/K sum_k w_k), w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x),
    and the ELBO from the same draws.

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519, equation 8: below
    log p(x) on average, and consistent. With mean weight m and mean squared
    weight s over the K draws, the effective sample size is K m^2 / s. Variance
    and bias of log m are the jackknife's (`errors_of_means.jackknife`), and
    k-hat says whether the weights' tail lets them be trusted (`pareto.shape`).

    The draws are streamed, and of the weights the 64 or 3 sqrt(K) + 1 largest
    are kept: memory hardly grows with K.

    Args:
      vae: a trained model.
      images: x `[B, H, W, C]`.
      num_samples: K.
      seed: of the draws.
      first: number of the first image, which gives the batches of a dataset
        draws of their own.
    """
    _check(num_samples)
    moments = _moments(vae, images, num_samples, seed, first, kept(num_samples))
    return of_moments(moments, num_samples)


def _check(num_samples):
    if type(num_samples) is not int or num_samples < 1:
        raise UserError(
            f"num_samples: expected an integer >= 1, received {num_samples!r}."
        )


def _moments(vae, images, num_samples, seed, first, length) -> Moments:
    images = vae.check_images(images)
    if images.shape[0] == 0:
        raise UserError(NO_IMAGES)
    at_once = min(num_samples, max(1, ROWS_AT_ONCE // images.shape[0]))
    return compiled(vae, _seeded_moments)(
        images,
        num_samples,
        at_once,
        tf.constant([seed, first], tf.int64),
        length,
    )


def _seeded_moments(
    vae: VAE,
    images: tf.Tensor,
    num_samples: int,
    at_once: int,
    seed: tf.Tensor,
    length: int,
) -> Moments:
    shape = (at_once, images.shape[0], vae.encoder.latent_dim)

    def noise(chunk):
        # Number of the first image, and below it that of the chunk.
        number = seed[1] * 2**32 + tf.cast(chunk, tf.int64)
        return standard_normal(shape, key("importance", seed[0], number))

    return importance_moments(
        vae,
        images,
        vae.encoder(images),
        vae.prior_distribution(),
        num_samples,
        at_once,
        noise,
        length,
        bound_sizes(num_samples),
    )
