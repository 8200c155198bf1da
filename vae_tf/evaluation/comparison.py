"""Runs ranked by what was measured of them, image by image; and a refusal,
with the reason, where their numbers do not compare. No TensorFlow here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vae_tf.config import LIKELIHOODS
from vae_tf.settings import UserError


class Measured(NamedTuple):
    """A run, and what was measured of it on N images."""

    run: str  # its name
    settings: dict[str, Any]  # of its model and training
    # `dataset`, `image_shape` and `checksum` of the data, `split`,
    # `num_examples`, `binarization`, `dequantization`, `likelihood`, `method`
    # and `num_importance_samples`.
    conditions: dict[str, Any]
    elbo: np.ndarray  # [N], nats
    log_marginal_likelihood: np.ndarray | None  # [N], nats


class Row(NamedTuple):
    """A run among others; in nats per image where nothing else is said."""

    run: str
    settings: dict[str, Any]  # those in which the runs differ
    elbo: float
    log_marginal_likelihood: float | None  # None where there is an ELBO alone
    standard_error: float  # of what ranks, over images
    method: str  # by which log p(x) was found
    num_importance_samples: int  # K
    difference: float  # of what ranks, from the first run's
    difference_standard_error: float  # paired, image by image


class Comparison(NamedTuple):
    """Runs, the best first; `str` of it is a table."""

    rows: list[Row]
    ranked_by: str  # "log p(x)" or "ELBO"
    baseline: str  # the run named first, from which differences are taken
    conditions: dict[str, Any]  # its own, of which the data's are all runs'

    def __str__(self) -> str:
        settings = list(self.rows[0].settings)
        header = ["ELBO", "log p(x)", "K", f"from {self.baseline}", "/ s.e."]
        lines = [["run", *settings, *header], *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        # Words from the left, numbers from the right.
        sides = "<" * (1 + len(settings)) + ">" * len(header)
        table = [
            "  ".join(
                f"{cell:{side}{width}}"
                for cell, side, width in zip(line, sides, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        notes = [
            "{dataset}, {split} split, {num_examples} images, binarization "
            "{binarization}, dequantization {dequantization}; nats per "
            "image.".format(**self.conditions),
            f"Ranked by {self.ranked_by}. Differences are paired, image by "
            "image; errors (±, s.e.) are over images, not over trainings.",
        ]
        estimators = {(r.method, r.num_importance_samples) for r in self.rows}
        if self.ranked_by != "ELBO" and len(estimators) > 1:
            notes.append(
                "K or method differs: importance sampling is below log p(x) on "
                "average, the more so the smaller K."
            )
        return "\n".join([*table, "", *notes])


def compare(runs: Sequence[Measured]) -> Comparison:
    """Runs ranked by log p(x), or by the ELBO where no run has more, with their
    differences from the first.

    Args:
      runs: two or more, measured on the same N images.

    Raises:
      UserError: there are fewer, or their numbers do not compare: what one of
        `SAME` says of them differs.
    """
    if len(runs) < 2:
        raise UserError(
            "--compare: expected at least two runs, received "
            f"{', '.join(run.run for run in runs) or 'none'}."
        )
    first = runs[0]
    for what, value, why in SAME:
        for run in runs[1:]:
            if value(run) != value(first):
                raise UserError(
                    f"--compare: expected runs of one {what}, received "
                    f"{value(first)} ({first.run}) and {value(run)} "
                    f"({run.run}): {why}."
                )
    differing = [
        name
        for name in first.settings
        if any(run.settings[name] != first.settings[name] for run in runs)
    ]
    ranked = sorted(runs, key=lambda run: -_ranking(run).mean())
    return Comparison(
        [_row(run, first, differing) for run in ranked],
        _quantity(first),
        first.run,
        first.conditions,
    )


def paired(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Mean gain over a baseline on the same images, and its standard error:
    images differ far more from each other than models do.

    Args:
      values, baseline: of the same images in the same order, `[N]`. Of one
        image, the error is NaN.
    """
    gain, count = values - baseline, len(values)
    error = gain.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return float(gain.mean()), float(error)


def _row(run: Measured, first: Measured, differing: list[str]) -> Row:
    ranking = _ranking(run)
    mean, error = paired(ranking, np.zeros_like(ranking))
    return Row(
        run.run,
        {name: run.settings[name] for name in differing},
        float(run.elbo.mean()),
        None if _quantity(run) == "ELBO" else mean,
        error,
        run.conditions["method"],
        run.conditions["num_importance_samples"],
        *paired(ranking, _ranking(first)),
    )


def _log_p(run: Measured) -> np.ndarray | None:
    """`[N]`, nats; None where there is an ELBO alone, which is what importance
    sampling estimates with one draw, too.
    """
    one = run.conditions["num_importance_samples"] == 1
    if one and run.conditions["method"] == "importance":
        return None
    return run.log_marginal_likelihood


def _ranking(run: Measured) -> np.ndarray:
    log_p = _log_p(run)
    return run.elbo if log_p is None else log_p


def _quantity(run: Measured) -> str:
    return "ELBO" if _log_p(run) is None else "log p(x)"


def _measure(run: Measured) -> str:
    continuous = LIKELIHOODS[run.conditions["likelihood"]] == "interval"
    return "densities" if continuous else "probabilities"


def _condition(name: str) -> Callable[[Measured], Any]:
    return lambda run: run.conditions[name]


# What must be the same, how it is found, and why numbers do not compare else.
OTHER_IMAGES = "log p(x) of other images does not say which model is better"
OTHER_PIXELS = (
    "grey levels turned into bits or numbers in another way, to train on or to "
    "measure on, are other data"
)
SAME: tuple[tuple[str, Callable[[Measured], Any], str], ...] = (
    ("dataset", _condition("dataset"), OTHER_IMAGES),
    ("image shape", _condition("image_shape"), OTHER_IMAGES),
    ("checksum of the images", _condition("checksum"), OTHER_IMAGES),
    ("split", _condition("split"), OTHER_IMAGES),
    ("number of images", _condition("num_examples"), OTHER_IMAGES),
    (
        "kind of p(x|z)",
        _measure,
        "the logarithm of a density (continuous_bernoulli, normal) depends on "
        "the unit of a pixel and may exceed 0, that of a probability "
        "(bernoulli, discretized_logistic) does neither",
    ),
    ("binarization", _condition("binarization"), OTHER_PIXELS),
    ("dequantization", _condition("dequantization"), OTHER_PIXELS),
    (
        "quantity",
        _quantity,
        "an ELBO, and with K = 1 there is no more, is below log p(x) by "
        "KL(q(z|x) || p(z|x)); evaluate.py with --num_importance_samples above "
        "1 finds log p(x)",
    ),
)


def _cells(row: Row) -> list[str]:
    log_p, error = row.log_marginal_likelihood, row.standard_error
    importance = row.method == "importance"
    apart = row.difference_standard_error
    return [
        row.run,
        *map(_typed, row.settings.values()),
        _number(row.elbo, error if log_p is None else math.nan),
        "" if log_p is None else _number(log_p, error),
        str(row.num_importance_samples) if importance else row.method,
        _number(row.difference, apart),
        f"{row.difference / apart:.1f}" if apart > 0 else "",
    ]


def _typed(value: Any) -> str:
    """A setting as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "unset" if value is None else str(value)


def _number(value: float, error: float) -> str:
    if value == error == 0:  # a run and itself
        return "0"
    return f"{value:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")
