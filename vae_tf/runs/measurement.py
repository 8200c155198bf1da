"""A run's best model, measured on a split of its data."""

import json
import math
import os
import pathlib
import sys
from typing import Any

import numpy as np
from PIL import Image

from vae_tf.config import require_split
from vae_tf.data.pipeline import Data
from vae_tf.evaluation import (
    annealed,
    decomposition,
    exact,
    growth,
    importance,
    pareto,
)
from vae_tf.evaluation.linear_probe import linear_accuracy
from vae_tf.evaluation.moments import bound_sizes
from vae_tf.inference import gaps, held_out
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.inference.plane import Plane, planes
from vae_tf.pictures import figures, gallery, inferred, measures
from vae_tf.pictures.snapshots import neighbour_accuracy
from vae_tf.runs import report
from vae_tf.runs.directory import (
    best,
    load,
    load_data_of_run,
    read_metrics,
    require_writable,
)
from vae_tf.runs.reading import config_of, evaluation_path
from vae_tf.runs.sums import sealed
from vae_tf.settings import UserError
from vae_tf.vae import VAE

METHODS = ("importance", "annealed", "quadrature")  # that find log p(x)
DECOMPOSED = 2048  # images whose ELBO is taken apart: q(z) takes N^2 densities
DRAWN = 100  # images drawn from the model, for --bidirectional
REFINED = 1000  # images whose own q is found, for --gaps
GAUSSIAN = ("mean_field", "full_covariance")  # and the encoder's own
SHOWN = 3  # of them, whose p(z|x) is drawn, in two latent dimensions


class NotWritten(UserError):
    """What was measured could not be written.

    Attributes:
      result: what was measured.
    """

    def __init__(self, message: str, result: dict[str, Any]):
        super().__init__(message)
        self.result = result


def evaluate_run(
    run_dir: str | os.PathLike,
    split: str = "test",
    num_importance_samples: int = 1000,
    num_examples: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
    method: str = "importance",
    tolerance: float | None = None,
    num_annealing_steps: int = 100,
    num_chains: int = 16,
    annealing_start: str | None = None,
    bidirectional: bool = False,
    inference_gaps: bool = False,
) -> dict[str, Any]:
    """Measures a run's best model on a split (without an encoder, by posteriors
    inferred for its images, `held_out.evaluate`), and writes into the run
    `evaluation-<split>.json` and, image by image, `evaluation-<split>.npz`; its
    report, where it has one, then shows the figures.

    Args:
      run_dir: a run directory.
      split: "train", "validation" or "test", binarised once.
      num_importance_samples: K, draws of z for each image.
      num_examples: the first so many images; None for all.
      seed: of the draws.
      data_dir: TFDS data directory, where it is not that of the run.
      method: by which log p(x) is found, and the rest as before: "importance";
        "annealed" importance sampling (`annealed.annealed`); or "quadrature",
        exact where the model has one or two latent dimensions
        (`exact.quadrature`).
      tolerance: in nats; K begins at `num_importance_samples`, and grows image
        by image until the Monte Carlo standard error of log p(x) is below it,
        or K is 128,000 (see `importance.evaluate`). None: K for all.
      num_annealing_steps, num_chains: of annealed importance sampling.
      annealing_start: "encoder" or "prior", where its chains start; None for
        the prior of a model without an encoder, or of two latent dimensions or
        fewer, where p(z|x) may have parts that q(z|x) leaves out and chains
        find the way to all of them.
      bidirectional: bounds of log p(x) from both sides, too, on 100 images that
        the model draws (`annealed.bidirectional`).
      inference_gaps: what of log p(x) - ELBO is the encoder's and what its
        family's, too, on the first 1,000 images (`gaps.inference_gaps`).

    Returns:
      What the JSON says: `importance.summary`, with what makes it comparable,
        the `epoch` of the weights and `epochs_trained` (None of a run without
        `metrics.csv`), `epochs_asked`, and the `method`; by quadrature,
        `quadrature_error`, the largest of any image, in place of the Monte
        Carlo error; by either other method, what importance sampling estimates,
        as `importance_weighted_bound`; `bidirectional` and `inference_gaps` if
        asked; `bits_per_dimension`, of log p(x); `decomposition`, what the ELBO
        of the first 2,048 images is made of (`decomposition.summary`); and,
        where images have classes, `knn_accuracy`: the share of images whose
        class is that of most of the 5 nearest z ~ q(z|x) of others, and
        `linear_probe_accuracy`: that of a linear classifier on the means of
        q(z|x) (`linear_accuracy`); None of too few images.

    Raises:
      UserError: there is no such run, split or method, the run is damaged, its
        data is out of reach or has changed, the result cannot be written
        (`NotWritten`, which has it), quadrature is asked of more than
        two latent dimensions, or the tolerance is not positive.
    """
    require_split(split)
    if method not in METHODS:
        raise UserError(
            f"--method: expected one of {', '.join(METHODS)}, received "
            f"{method!r}."
        )
    if num_examples is not None and num_examples < 1:
        raise UserError(
            "--num_examples: expected an integer >= 1, received "
            f"{num_examples!r}."
        )
    if tolerance is not None:
        growth.check(tolerance)
    run_dir = pathlib.Path(run_dir)
    vae, config = load(run_dir), config_of(run_dir)
    history = read_metrics(run_dir)
    tabled = isinstance(vae, LocalVAE)
    for name, value, expected in (
        ("method", method, METHODS[:2]),
        ("tolerance", tolerance, (None,)),
        ("annealing_start", annealing_start, (None, "prior")),
    ):
        if tabled and value not in expected:
            words = ", ".join(map(str, expected))
            raise UserError(
                f"--{name}: expected {words} of a run with --inference "
                f"mean_field, which has no encoder, received {value}."
            )
    near = tabled or vae.encoder.latent_dim <= 2
    start = annealing_start or ("prior" if near else "encoder")
    require_writable(run_dir)
    data = load_data_of_run(run_dir, data_dir)
    dataset = data.in_order(split, importance.BATCH_SIZE, num_examples)
    verbose = int(sys.stdout.isatty())
    if inference_gaps:
        gaps.check(vae)
    instead: dict[str, Any] = {}  # of importance sampling's log p(x)
    if method == "annealed":
        chains = annealed.evaluate(
            vae,
            dataset,
            num_annealing_steps,
            num_chains,
            seed,
            start,
            verbose=verbose,
        )
        instead = chains._asdict()
        averaged = annealed.summary(chains, num_annealing_steps, num_chains)
    elif method == "quadrature":
        grid = exact.evaluate(vae, dataset, verbose=verbose)
        instead = grid._asdict()
        averaged = exact.summary(grid)
    local = None
    if tabled:
        estimates, local = held_out.evaluate(
            vae, dataset, num_importance_samples, seed, verbose
        )
    else:
        estimates = importance.evaluate(
            vae, dataset, num_importance_samples, seed, verbose, tolerance
        )
    summary = importance.summary(estimates, num_importance_samples, tolerance)
    arrays = estimates._asdict()
    arrays["bound_sizes"] = np.array(bound_sizes(num_importance_samples))
    if instead:
        bound = summary["log_marginal_likelihood"]
        arrays["importance_weighted_bound"] = estimates.log_marginal_likelihood
        summary |= {"importance_weighted_bound": bound} | averaged
        arrays |= instead
    result = {
        "dataset": data.source.variant,
        "binarization": data.binarization,
        "dequantization": data.dequantization,
        "split": split,
        "inference": config.inference,
        "likelihood": config.likelihood,
        "method": method,
        **summary,
        "seed": seed,
        "epoch": best(history)["epoch"] if history else None,
        "epochs_trained": len(history) or None,
        "epochs_asked": config.epochs,
        "units": "nats per example",
        "bits_per_dimension": decomposition.bits_per_dimension(
            summary["log_marginal_likelihood"], data.image_shape, _levels(data)
        ),
    }
    pictures: dict[str, Image.Image] = {}
    if bidirectional:
        bounds = annealed.bidirectional(
            vae,
            DRAWN,
            num_annealing_steps,
            num_chains,
            seed,
            start,
            verbose=verbose,
        )
        result["bidirectional"] = annealed.summary_of_bounds(bounds)
    if inference_gaps:
        count = num_examples or REFINED
        images = next(iter(data.in_order(split, count, count)))
        own = gaps.family_of(vae)
        found = {
            family: gaps.inference_gaps(
                vae, images, family, seed=seed, verbose=verbose
            )
            for family in dict.fromkeys((own, *GAUSSIAN))
        }
        result["inference_gaps"] = found[own].summary() | {
            "refined_elbo_by_family": {
                family: float(gap.refined_elbo.mean())
                for family, gap in found.items()
            }
        }
        for family, gap in found.items():
            place = "gaps" if family == own else f"gaps_{family}"
            arrays |= {
                f"{place}_{name}": value for name, value in gap.arrays().items()
            }
        if config.figures_every:
            pictures[f"gaps_{split}"] = _picture_of_gaps(vae, images, found)
    if local is None:
        few = min(summary["num_examples"], DECOMPOSED)
        result["decomposition"] = _composition(
            vae, data, split, few, seed, verbose
        )
    labels = data.labels(split)
    if labels is not None:
        posteriors = map(vae.encoder, dataset) if local is None else [local]
        codes = [
            (posterior.sample(seed=[seed, number]), posterior.mean())
            for number, posterior in enumerate(posteriors)
        ]
        z, loc = map(np.concatenate, zip(*codes, strict=True))
        labels = labels[: len(z)]
        for name, accuracy in (
            ("knn_accuracy", neighbour_accuracy(z, labels)),
            ("linear_probe_accuracy", linear_accuracy(loc, labels)),
        ):  # of too few images there is none
            result[name] = None if math.isnan(accuracy) else accuracy
    result = _as_json(result)
    path = evaluation_path(run_dir, split)
    try:
        # Both are written before either takes the place of what was there.
        with sealed(path.with_suffix(".npz")) as file, sealed(path) as text:
            np.savez(file, **arrays)
            text.write_text(json.dumps(result, indent=2) + "\n")
    except UserError as error:
        raise NotWritten(str(error), result) from None
    if config.figures_every:
        pictures[f"evaluation_{split}"] = _picture(result, arrays)
        gallery.write(run_dir, pictures)
        report.write(run_dir)
    return result


def _as_json(value: Any) -> Any:
    """A value with None for numbers that are none, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _composition(
    vae: VAE, data: Data, split: str, count: int, seed: int, verbose: int
) -> dict[str, Any]:
    """What the ELBO of the first so many images is made of, without q(z) where
    that would take D passes for each pair of them.
    """
    found = decomposition.decompose(
        vae,
        data.in_order(split, importance.BATCH_SIZE, count),
        seed=seed,
        aggregate=vae.encoder.one_pass_density,
        verbose=verbose,
    )
    values = decomposition.summary(found, data.image_shape, _levels(data))
    del values["bits_per_dimension"]  # of log p(x), of these few alone
    return values


def _picture_of_gaps(
    vae: VAE, images, found: dict[str, gaps.Gaps]
) -> Image.Image:
    own = next(iter(found.values()))
    shown: list[Plane] = []
    if vae.encoder.latent_dim == 2:
        some = slice(SHOWN)
        shown = planes(vae, images[some], own.local.rows(some))
    figure = inferred.gaps(
        own.elbo,
        {family: gap.refined_elbo for family, gap in found.items()},
        # Each is below log p(x) on average: the highest is the nearest.
        max(gap.log_marginal_likelihood.mean() for gap in found.values()),
        shown,
    )
    return figures.drawn(figure)


def _levels(data: Data) -> int | None:
    """Levels to each of which a density of dequantised pixels belongs."""
    uniform = data.dequantization == "uniform"
    return data.source.levels if uniform else None


def _picture(result: dict[str, Any], arrays: dict[str, Any]) -> Image.Image:
    composition = result.get("decomposition", {})
    per_dimension = composition.get("kl_per_dimension")
    bounds = result["importance_weighted_bound_by_samples"]
    figure = measures.evaluation(
        None if per_dimension is None else np.array(per_dimension),
        {int(size): bound for size, bound in bounds.items()},
        result["log_marginal_likelihood"],
        arrays["pareto_k"],
        pareto.UNRELIABLE,
    )
    return figures.drawn(figure)
