"""A run's best model, measured on a split of its data."""

import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

from vae_tf.config import SPLITS, Config
from vae_tf.data.files import written_atomically
from vae_tf.evaluation import exact, importance
from vae_tf.inference import held_out
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.pictures.snapshots import neighbour_accuracy
from vae_tf.runs import report
from vae_tf.runs.directory import (
    load,
    load_data_of_run,
    require_writable,
)
from vae_tf.settings import UserError

METHODS = ("importance", "quadrature")  # by which log p(x) is found


def evaluate_run(
    run_dir: str | os.PathLike,
    split: str = "test",
    num_importance_samples: int = 1000,
    num_examples: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
    method: str = "importance",
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
      method: "importance"; or "quadrature", which finds log p(x) exactly where
        the model has one or two latent dimensions (`exact.quadrature`), and the
        rest as before.

    Returns:
      What the JSON says: `importance.summary`, with what makes it comparable
        and the `method`; by quadrature, `quadrature_error`, the largest of any
        image, in place of the Monte Carlo error, and what importance sampling
        estimates, as `importance_weighted_bound`; and, where images have
        classes, `knn_accuracy`: the share of images whose class is that of most
        of the 5 nearest z ~ q(z|x) of others.

    Raises:
      UserError: there is no such run, split or method, the run is damaged, its
        data is out of reach or has changed, or quadrature is asked of more than
        two latent dimensions, or of a model without an encoder.
    """
    if split not in SPLITS:
        raise UserError(
            f"--split: expected one of {', '.join(SPLITS)}, received {split!r}."
        )
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
    vae, config = load(run_dir), Config.load(run_dir)
    if isinstance(vae, LocalVAE) and method != "importance":
        raise UserError(
            "--method: expected importance of a run with --inference "
            "mean_field, whose q(z|x) of new images are inferred one by one, "
            f"received {method!r}."
        )
    require_writable(run_dir)
    data = load_data_of_run(run_dir, data_dir)
    dataset = data.in_order(split, importance.BATCH_SIZE, num_examples)
    verbose = int(sys.stdout.isatty())
    found: exact.Exact | None = None
    if method == "quadrature":
        found = exact.evaluate(vae, dataset, verbose=verbose)
    z = None
    if isinstance(vae, LocalVAE):
        estimates, z = held_out.evaluate(
            vae, dataset, num_importance_samples, seed, verbose=verbose
        )
    else:
        estimates = importance.evaluate(
            vae, dataset, num_importance_samples, seed, verbose=verbose
        )
    summary = importance.summary(estimates, num_importance_samples)
    arrays = estimates._asdict()
    if found is not None:
        summary = _by_quadrature(estimates, found, num_importance_samples)
        arrays |= found._asdict()
        arrays["importance_weighted_bound"] = estimates.log_marginal_likelihood
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
        "units": "nats per example",
    }
    labels = data.labels(split)
    if labels is not None:
        if z is None:
            z = np.concatenate(
                [
                    vae.encoder(images).sample(seed=[seed, number])
                    for number, images in enumerate(dataset)
                ]
            )
        result["knn_accuracy"] = neighbour_accuracy(z, labels[: len(z)])
    path = pathlib.Path(run_dir) / f"evaluation-{split}.npz"
    with written_atomically(path) as temporary:
        np.savez(temporary, **arrays)
    path = path.with_suffix(".json")
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    if config.figures_every:
        report.write(run_dir)
    return result


def _by_quadrature(
    estimates: importance.Estimates, found: exact.Exact, num_samples: int
) -> dict[str, Any]:
    """The summary, with log p(x) that needs no draws."""
    summary = importance.summary(
        estimates._replace(
            log_marginal_likelihood=found.log_marginal_likelihood
        ),
        num_samples,
    )
    return summary | {
        "monte_carlo_standard_error": None,
        "monte_carlo_bias": None,
        "quadrature_error": float(found.quadrature_error.max()),
        "importance_weighted_bound": float(
            estimates.log_marginal_likelihood.mean()
        ),
    }
