"""log p(x) by annealed importance sampling, in nats: for models whose q(z|x) is
too far from p(z|x) for plain importance sampling; and how far it is off, from
below and from above, on images whose z is known.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_tf.evaluation import annealing
from vae_tf.evaluation.errors_of_means import averages, jackknife
from vae_tf.refusals import NO_IMAGES
from vae_tf.settings import UserError
from vae_tf.vae import VAE

BATCH_SIZE = 128  # images at once, of those that are drawn
STEEPNESS = (
    4.0  # of the schedule: steps at its ends are 1/14 of the middle ones
)
PILOT_CHAINS = 8  # that find the step sizes
ACCEPTANCE = 0.65  # to which they find them
RATE = 0.3  # by which the pilots' log step size follows their acceptance


class Annealed(NamedTuple):
    """Per image, `[B]`, in nats where nothing else is said."""

    log_marginal_likelihood: np.ndarray
    variance: np.ndarray  # of the estimate, nats squared; NaN of one chain
    bias: np.ndarray  # of the estimate, about; NaN of one chain
    effective_sample_size: np.ndarray  # between 1 and the number of chains
    acceptance: np.ndarray  # share of proposals; NaN where there are none


class Bidirectional(NamedTuple):
    """Per image, `[N]`, in nats but for the last."""

    lower: np.ndarray  # at most log p(x) on average
    upper: np.ndarray  # at least log p(x) on average
    acceptance: np.ndarray  # share of proposals, in both directions

    @property
    def gap(self) -> np.ndarray:
        """Upper bound less lower one: on average at least what either misses
        of log p(x), below 0 for some images by chance.
        """
        return self.upper - self.lower


def evaluate(
    vae: VAE,
    dataset: tf.data.Dataset,
    num_steps: int,
    num_chains: int,
    seed: int,
    start: str = "encoder",
    verbose: int = 0,
) -> Annealed:
    """`annealed` of every image of a dataset of batches `[B, H, W, C]`, in its
    order; `verbose=1` shows a progress bar.
    """
    if len(dataset) == 0:
        raise UserError(NO_IMAGES)
    bar = keras.utils.Progbar(
        len(dataset),
        verbose=verbose,
        stateful_metrics=["log p(x)", "acceptance"],
    )
    batches: list[Annealed] = []
    for images in dataset:
        first = sum(len(batch.variance) for batch in batches)
        batches.append(
            annealed(vae, images, num_steps, num_chains, seed, start, first)
        )
        found = Annealed(*map(np.concatenate, zip(*batches, strict=True)))
        bar.update(
            len(batches),
            [
                ("log p(x)", found.log_marginal_likelihood.mean()),
                ("acceptance", found.acceptance.mean()),
            ],
        )
    return found


def summary(found: Annealed, num_steps: int, num_chains: int) -> dict[str, Any]:
    """Averages over images, with their errors.

    Args:
      found: of any number of images.
      num_steps, num_chains: with which they were made.

    Returns:
      A dict of `errors_of_means.averages`; the median `effective_sample_size`;
      the mean `acceptance`, None where nothing was proposed;
      `num_annealing_steps`; and `num_chains`.
    """
    return {
        **averages(found.log_marginal_likelihood, found.variance, found.bias),
        "effective_sample_size": float(np.median(found.effective_sample_size)),
        "acceptance": float(found.acceptance.mean()) if num_steps > 1 else None,
        "num_annealing_steps": num_steps,
        "num_chains": num_chains,
    }


def annealed(
    vae: VAE,
    images,
    num_steps: int,
    num_chains: int,
    seed: int,
    start: str = "encoder",
    first: int = 0,
) -> Annealed:
    """log p(x) ~ log(1/K sum_k w_k), with the weight of each of K chains that
    go from a start r(z) to p(x, z) by way of

      f_t(z) = r(z)^(1 - b_t) p(x, z)^(b_t),  0 = b_0 < b_1 < ... < b_T = 1
      log w = sum_t (b_t - b_(t-1)) log(p(x, z_(t-1)) / r(z_(t-1)))

    z_0 ~ r, and z_t follows z_(t-1) by a step of Hamiltonian Monte Carlo, which
    leaves f_t as it is. Neal 2001, annealed importance sampling,
    arXiv:physics/9803008: the mean of w is p(x), so that the estimate is below
    log p(x) on average, and consistent in both K and T. Of one step it is
    importance sampling. Variance and bias of the logarithm are the jackknife's
    (`errors_of_means.jackknife`), over chains: they know nothing of a part of
    p(z|x) where no chain has been.

    With start "encoder", r is q(z|x), and chains move in its noise epsilon, z =
    T(epsilon): its scale is then that of the proposals, any posterior's density
    takes one pass, and f_t is N(epsilon; 0, I) w(epsilon)^(b_t) with the
    importance weight w. With start "prior", r is p(z), f_t is p(z) p(x|z)^(b_t)
    and chains move in z: a longer way, which needs more steps, and finds parts
    of p(z|x) that q(z|x) leaves out, such as the other side of the plane in two
    dimensions, where start "encoder" is below log p(x) by more than it says.

    b_t is a sigmoid of t, rescaled, which is slow at both ends. The size of the
    proposals' steps, one for each image and t, is found by a few pilot chains
    with noise of their own, which follow an acceptance of 0.65, and is then
    held: the weights of the others do not see it. This is a loop of its own and
    not `tfp.mcmc.sample_annealed_importance_chain`, whose b_t are equidistant,
    whose kernel has one step size along the path, and which differentiates
    anew what does not change with t.

    Memory: 2,048 chains at once, or one of each image where they are more; 4 T
    bytes for each image; and the weights. Time: 3 gradients of p(x|z) for each
    chain and step, and for those of the pilots.

    Args:
      vae: a trained model.
      images: x `[B, H, W, C]`.
      num_steps: T.
      num_chains: K.
      seed: of all draws; the result is a function of it.
      start: "encoder" or "prior".
      first: number of the first image, which gives the batches of a dataset
        draws of their own.

    Raises:
      UserError: a number is below 1, there is no such start, or the images are
        not what `VAE.check_images` expects.
    """
    _check(start, num_steps=num_steps, num_chains=num_chains)
    path = annealing.Path(
        vae, vae.check_images(images), num_steps, seed, start, first
    )
    log_weights, acceptance = path.weights(num_chains)
    log_sum = np.logaddexp.reduce(log_weights, axis=1)
    log_sum_of_squares = np.logaddexp.reduce(2 * log_weights, axis=1)
    variance, bias = jackknife(
        log_weights, log_sum, log_sum_of_squares, num_chains
    )
    return Annealed(
        log_marginal_likelihood=log_sum - math.log(num_chains),
        variance=variance,
        bias=bias,
        effective_sample_size=np.exp(2 * log_sum - log_sum_of_squares),
        acceptance=acceptance,
    )


def bidirectional(
    vae: VAE,
    num_images: int,
    num_steps: int,
    num_chains: int,
    seed: int,
    start: str = "encoder",
    verbose: int = 0,
) -> Bidirectional:
    """A lower and an upper bound of log p(x), each on average, of the images
    `vae.sample(num_images, seed)`, whose z is a draw from p(z|x).

    Grosse, Ghahramani and Adams 2015, bidirectional Monte Carlo,
    arXiv:1511.02543. The lower bound is that of `annealed`. For the upper one,
    K chains go from z the same way back, from b_T to b_0 by the same steps: the
    mean of 1/w over chains is that of 1/p(x), and minus its logarithm is above
    log p(x) on average. What is true of these images need not be so of data
    that the model has not drawn.

    Args:
      vae: a trained model.
      num_images: N.
      num_steps, num_chains, start: see `annealed`.
      seed: of the images and of the chains.
      verbose: 1 shows a progress bar.

    Raises:
      UserError: a number is below 1, or there is no such start.
    """
    _check(
        start,
        num_images=num_images,
        num_steps=num_steps,
        num_chains=num_chains,
    )
    z, images = vae.sample_joint(num_images, seed)
    bar = keras.utils.Progbar(
        -(-num_images // BATCH_SIZE), verbose=verbose, stateful_metrics=["gap"]
    )
    batches: list[Bidirectional] = []
    for first in range(0, num_images, BATCH_SIZE):
        rows = slice(first, first + BATCH_SIZE)
        path = annealing.Path(vae, images[rows], num_steps, seed, start, first)
        up, accepted = path.weights(num_chains)
        down, accepted_back = path.weights(num_chains, z[rows])
        batches.append(
            Bidirectional(
                np.logaddexp.reduce(up, axis=1) - math.log(num_chains),
                math.log(num_chains) - np.logaddexp.reduce(-down, axis=1),
                (accepted + accepted_back) / 2,
            )
        )
        found = Bidirectional(*map(np.concatenate, zip(*batches, strict=True)))
        bar.update(len(batches), [("gap", found.gap.mean())])
    return found


def summary_of_bounds(found: Bidirectional) -> dict[str, Any]:
    """Averages over the images that were drawn, in nats, each with its standard
    error over them: `lower`, `upper`, and `gap` between the two; and the mean
    `acceptance`.
    """
    count = len(found.lower)
    result: dict[str, Any] = {"num_examples": count}
    for name in ("lower", "upper", "gap"):
        values = getattr(found, name)
        result[name] = float(values.mean())
        result[f"{name}_standard_error"] = (
            float(values.std(ddof=1) / math.sqrt(count)) if count > 1 else None
        )
    return result | {"acceptance": float(found.acceptance.mean())}


def _check(start, **numbers) -> None:
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise UserError(
                f"{name}: expected an integer >= 1, received {number!r}."
            )
    if start not in annealing.STARTS:
        raise UserError(
            f"start: expected one of {', '.join(annealing.STARTS)}, received "
            f"{start!r}."
        )
