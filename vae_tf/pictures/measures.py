"""What an evaluation measured, drawn: a panel for each thing that was."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from vae_tf.pictures.figures import DPI, FAINT, INK, VALIDATION, plain

LIMITS = (-1.0, 2.0)  # of k-hat, in the picture


def evaluation(
    kl_per_dimension: np.ndarray | None,
    bounds: Mapping[int, float],
    log_marginal_likelihood: float,
    pareto_k: np.ndarray,
    unreliable: float,
) -> Figure:
    """The KL of each latent dimension, where it is known; the
    importance-weighted bound against the number of draws, if more than one; and
    the shapes of the weights' tails, where there are tails.

    Args:
      kl_per_dimension: `[D]`, in nats, or None.
      bounds: number of draws -> the bound, in nats per image.
      log_marginal_likelihood: what the bounds approach.
      pareto_k: k-hat `[N]`; those that are NaN do not count.
      unreliable: k-hat above which an estimate is not to be trusted.
    """
    known = pareto_k[~np.isnan(pareto_k)]
    panels: list[Callable] = []
    if kl_per_dimension is not None:
        panels.append(lambda axes: _dimensions(axes, kl_per_dimension))
    if len(bounds) > 1:
        panels.append(
            lambda axes: _bounds(axes, bounds, log_marginal_likelihood)
        )
    if len(known):
        panels.append(lambda axes: _tails(axes, known, unreliable))
    count = max(len(panels), 1)
    figure = Figure(figsize=(3.3 * count, 2.7), dpi=DPI, layout="constrained")
    places = figure.subplots(1, count, squeeze=False)[0]
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, draw in zip(places, panels, strict=False):
        draw(axes)
        plain(axes)
        axes.title.set_size(9)
    return figure


def _dimensions(axes, kl: np.ndarray) -> None:
    axes.bar(np.arange(1, len(kl) + 1), np.sort(kl)[::-1], color=VALIDATION)
    axes.set_title("KL of each latent dimension")
    axes.set(xlabel="latent dimension, by size", ylabel="nats per image")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _bounds(axes, bounds: Mapping[int, float], log_p: float) -> None:
    axes.plot(list(bounds), list(bounds.values()), ".-", color=VALIDATION)
    axes.axhline(log_p, color=FAINT, lw=0.9, zorder=0)
    axes.annotate(
        f"log p(x) {log_p:.2f}",
        (0, log_p),
        (2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        size=8,
        color=INK,
    )
    axes.set_xscale("log")
    axes.margins(y=0.15)
    axes.set_title("bound against K")
    axes.set(xlabel="draws of z for each image, K", ylabel="nats per image")


def _tails(axes, k: np.ndarray, unreliable: float) -> None:
    shown = np.clip(k, *LIMITS)
    edges = np.linspace(*LIMITS, 31)
    axes.hist(shown, edges, color=VALIDATION)
    axes.axvline(unreliable, color=INK, lw=0.9, ls="--")
    axes.annotate(
        f"{np.mean(k > unreliable):.1%} above {unreliable}",
        (unreliable, 0.97),
        (3, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        size=8,
        color=INK,
        va="top",
    )
    axes.set_title("tails of the weights")
    axes.set(xlabel="Pareto k-hat", ylabel="images")
