"""What inference found, drawn: where log p(x) - ELBO goes, and one image's ELBO
taken apart, in both languages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vae_tf.inference.explanation import Explanation
from vae_tf.inference.plane import Plane
from vae_tf.pictures.figures import DPI, FAINT, INK, TRAINING, VALIDATION, plain

AMORTIZATION, APPROXIMATION = "#88ccee", "#cc6677"
CONTOURS = np.exp([-2.0, -0.5])  # 2 and 1 standard deviations of a Gaussian
DIMENSIONS = 20  # latent dimensions shown, those of most nats


def gaps(
    elbo: np.ndarray,
    refined: Mapping[str, np.ndarray],
    log_p: float,
    planes: Sequence[Plane] = (),
) -> Figure:
    """The ELBO of the encoder, that of the best q of each family, and log p(x),
    on average; the first two image by image; and p(z|x) beside both q, for some
    images of a model of two latent dimensions.

    Args:
      elbo: of q(z|x) `[N]`, in nats.
      refined: family -> the ELBO of its best q `[N]`; first the encoder's.
      log_p: log p(x), on average.
      planes: of the images that are shown.
    """
    count = 2 + len(planes)
    figure = Figure(figsize=(3.3 * count, 2.9), dpi=DPI, layout="constrained")
    bars, scatter, *rest = figure.subplots(1, count)
    _bars(bars, elbo, refined, log_p)
    _scatter(scatter, elbo, next(iter(refined.values())))
    for number, (axes, plane) in enumerate(zip(rest, planes, strict=True)):
        _plane(axes, plane, number)
    for axes in (bars, scatter, *rest):
        plain(axes)
        axes.title.set_size(9)
    return figure


def _bars(axes, elbo, refined, log_p) -> None:
    low, high = elbo.mean(), log_p
    for place, values in enumerate(refined.values()):
        between = values.mean()
        for left, right, colour in (
            (low, between, AMORTIZATION),
            (between, high, APPROXIMATION),
        ):
            axes.barh(place, right - left, 0.6, left, color=colour)
            axes.text(
                (left + right) / 2,
                place,
                f"{right - left:.2f}",
                ha="center",
                va="center",
                size=8,
                color=INK,
            )
    axes.set_yticks(range(len(refined)), refined)
    axes.margins(x=0.08)
    axes.xaxis.get_major_locator().set_params(nbins=4)
    axes.set_ylim(
        len(refined) - 0.4, -1.2
    )  # the first on top, below the legend
    axes.legend(
        handles=[
            Patch(color=AMORTIZATION, label="ELBO to the best q"),
            Patch(color=APPROXIMATION, label="best q to log p(x)"),
        ],
        loc="upper center",
        ncols=2,
        frameon=False,
        fontsize=7,
        handlelength=1,
    )
    axes.set_title(f"from ELBO {low:.2f} to log p(x) {high:.2f}")
    axes.set(xlabel="nats per image")


def _scatter(axes, elbo, refined) -> None:
    ends = min(elbo.min(), refined.min()), max(elbo.max(), refined.max())
    axes.plot(ends, ends, color=FAINT, lw=0.9, zorder=0)
    axes.scatter(elbo, refined, s=5, c=VALIDATION, lw=0, alpha=0.6)
    axes.set_title("image by image")
    axes.set(xlabel="ELBO of the encoder's q", ylabel="ELBO of the best q")


def _plane(axes, plane: Plane, number: int) -> None:
    z = plane.z_1, plane.z_2
    axes.contourf(*z, plane.true, [*CONTOURS, 1.01], colors=[FAINT, "#888888"])
    for density, colour, style in (
        (plane.amortized, AMORTIZATION, "dashed"),
        (plane.refined, VALIDATION, "solid"),
    ):
        axes.contour(
            *z,
            density,
            CONTOURS,
            colors=colour,
            linestyles=style,
            linewidths=1.2,
        )
    if number == 0:
        axes.legend(
            handles=[
                Patch(color=FAINT, label="p(z|x)"),
                Line2D([], [], color=AMORTIZATION, ls="--", label="q(z|x)"),
                Line2D([], [], color=VALIDATION, label="best q"),
            ],
            frameon=False,
            fontsize=7,
            loc="best",
        )
    axes.set_title(f"image {number + 1}, to 1 and 2 s.d.")
    axes.set(xlabel="$z_1$", ylabel="$z_2$")


def draw_explanation(found: Explanation) -> Figure:
    """What `vae_tf.explain` has found of one image, as a picture: image,
    reconstruction, the nats of each pixel and each latent dimension, and every
    quantity, in nats, under both of its names.

    Args:
      found: of `vae_tf.explain`.
    """
    figure = Figure(figsize=(9.6, 5.2), dpi=DPI, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    above, below = parts
    image, reconstruction, pixels, dimensions = above.subplots(
        1, 4, width_ratios=(1, 1, 1.15, 1.5)
    )
    _image(image, found.image, "x")
    _image(
        reconstruction, found.reconstruction, "reconstruction: mean of p(x|z)"
    )
    if found.pixel_cost is None:
        pixels.set_axis_off()
    else:
        cost = found.pixel_cost.sum(-1)
        shown = pixels.imshow(cost, cmap="magma", interpolation="nearest")
        bar = above.colorbar(shown, ax=pixels, shrink=0.8, label="nats")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.label.set_size(8)
        pixels.set_xticks([])
        pixels.set_yticks([])
        pixels.set_title("cost: $-E_q[\\log p(x_i|z)]$", size=8)
    if found.kl_per_dimension is None:
        dimensions.set_axis_off()
    else:
        _dimensions(dimensions, found.kl_per_dimension)
    _quantities(below.subplots(), found)
    return figure


def _image(axes, image: np.ndarray, title: str) -> None:
    shown = np.broadcast_to(np.clip(image, 0, 1), (*image.shape[:2], 3))
    axes.imshow(shown, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, size=8)


def _dimensions(axes, kl: np.ndarray) -> None:
    order = np.argsort(kl)[::-1][:DIMENSIONS]
    axes.bar(range(len(order)), kl[order], color=VALIDATION)
    axes.set_xticks(
        range(len(order)), [f"$z_{{{d + 1}}}$" for d in order], size=7
    )
    words = "" if len(order) == len(kl) else f", the first {len(order)}"
    axes.set_title(f"KL of each latent dimension{words}", size=8)
    axes.set(ylabel="nats")
    plain(axes)
    if len(order) > 10:
        axes.tick_params(axis="x", labelsize=5)


def _quantities(axes, found: Explanation) -> None:
    """A bar for each, in its two languages on either side."""
    places = range(len(found.quantities))
    values = np.array([one.value for one in found.quantities])
    axes.barh(
        places,
        np.abs(values),
        0.6,
        color=np.where(values < 0, TRAINING, APPROXIMATION),
    )
    for place, one in enumerate(found.quantities):
        error = f" ± {one.error:.2f}" if one.error else ""
        axes.annotate(
            f"{one.value:.2f}{error}",
            (abs(one.value), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8,
            color=INK,
        )
    axes.set_yticks(places, [one.network for one in found.quantities])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set(xlabel="nats; the length of a bar is without its sign")
    plain(axes)
    other = axes.secondary_yaxis("right")
    other.set_yticks(places, [one.probability for one in found.quantities])
    other.tick_params(labelsize=8, length=0)
    other.spines[:].set_visible(False)
