"""Arrays in, pictures out: what a run looks like. Matplotlib without a display;
no TensorFlow, no model.

Each function returns a `matplotlib.figure.Figure`; `drawn` makes an image of
it, and `gif` an animation of images."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import EngFormatter
from PIL import Image

# Tol's "muted", safe for the colour-blind, with a dark grey as its tenth.
COLOURS = (
    "#332288 #88ccee #44aa99 #117733 #999933 "
    "#ddcc77 #cc6677 #882255 #aa4499 #555555"
).split()
INK, FAINT = "#222222", "#bbbbbb"
TRAINING, VALIDATION = "#88ccee", "#332288"
LONG = 10_000  # nats, whose digits an axis has no room for
LATENT_LIMIT = 4.0  # of the axes of latent space, the same in every frame
DPI = 110
FRAME_MILLISECONDS, LAST_MILLISECONDS = 450, 2500


def drawn(figure: Figure) -> Image.Image:
    """The figure as an RGB image; the same figure gives the same bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def png(image: Image.Image) -> bytes:
    """The image as the content of a PNG file."""
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def gif(frames: Sequence[Image.Image]) -> bytes:
    """The frames as the content of an endless GIF that dwells on the last."""
    # Every frame in the colours of the last one: a class keeps its own.
    palette = frames[-1].quantize(255, Image.Quantize.MAXCOVERAGE)
    few = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    durations = [FRAME_MILLISECONDS] * len(few)
    durations[-1] = LAST_MILLISECONDS
    content = io.BytesIO()
    few[0].save(
        content,
        "gif",
        save_all=True,
        append_images=few[1:],
        duration=durations,
        loop=0,
    )
    return content.getvalue()


def posterior(
    points: np.ndarray,
    labels: np.ndarray | None,
    title: str,
    axes_names: Sequence[str] = ("$z_1$", "$z_2$"),
    prior_points: np.ndarray | None = None,
) -> Figure:
    """One sample of q(z|x) for each image, coloured by class.

    Args:
      points: `[N, 2]`.
      labels: integers `[N]`, or None.
      title: above the picture.
      axes_names: of the two axes.
      prior_points: draws from p(z) `[M, 2]`, shown behind; where None, circles
        at 1, 2 and 3 standard deviations of N(0, I).
    """
    figure = Figure(figsize=(4.9, 4.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    if prior_points is None:
        for radius in (1, 2, 3):
            axes.add_patch(Circle((0, 0), radius, fill=False, ec=FAINT, lw=0.9))
            axes.text(0, radius + 0.05, f"{radius} sd", color="#888888", size=7)
    else:
        prior_x, prior_y = prior_points.T
        axes.scatter(prior_x, prior_y, s=6, c="#e4e4e4", lw=0)
    x, y = points.T
    classes = np.unique([] if labels is None else labels)
    # Ten colours tell classes apart; of more, colours tell their order.
    if labels is None:
        axes.scatter(x, y, s=4, c=COLOURS[0], lw=0, alpha=0.6)
    elif len(classes) <= len(COLOURS):
        colours = np.array(COLOURS)[np.searchsorted(classes, labels)]
        axes.scatter(x, y, s=4, c=colours, lw=0)
        axes.legend(
            handles=[
                Line2D([], [], marker="o", ls="", color=colour, label=str(name))
                for name, colour in zip(classes, COLOURS, strict=False)
            ],
            title="class",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            handletextpad=0.1,
        )
        for name, colour in zip(classes, COLOURS, strict=False):
            axes.annotate(
                str(name),
                np.median(points[labels == name], axis=0),
                color=colour,
                weight="bold",
                ha="center",
                va="center",
                annotation_clip=True,
                path_effects=[
                    patheffects.withStroke(linewidth=2.5, foreground="w")
                ],
            )
    else:
        dots = axes.scatter(x, y, s=4, c=labels, cmap="cividis", lw=0)
        figure.colorbar(dots, label="class", shrink=0.7)
    outside = int(np.sum(np.abs(points).max(axis=1) > LATENT_LIMIT))
    if outside:
        axes.text(
            0.02,
            0.02,
            f"{outside} of {len(points)} lie outside",
            transform=axes.transAxes,
            size=7,
            color=INK,
        )
    axes.set(
        xlim=(-LATENT_LIMIT, LATENT_LIMIT),
        ylim=(-LATENT_LIMIT, LATENT_LIMIT),
        xlabel=axes_names[0],
        ylabel=axes_names[1],
        aspect="equal",
    )
    plain(axes)
    axes.set_title(title, size=9)
    return figure


def prior_predictive(
    images: np.ndarray, title: str, values: np.ndarray | None = None
) -> Figure:
    """Images in rows and columns, pixel by pixel: over a grid of z, or a sheet
    of draws.

    Args:
      images: `[R, C, H, W, 1 or 3]` in [0, 1] or uint8.
      title: above the picture.
      values: of z along both axes `[R]`, rising; None for a sheet, whose places
        mean nothing.
    """
    sheet = mosaic(images)
    height, width = sheet.shape[:2]
    # Whole pixels of the picture to a pixel of an image.
    factor = max(1, round(440 / max(height, width)))
    height, width = factor * height, factor * width
    # Margins in pixels, wide enough for what is written in them.
    left, bottom = (12, 12) if values is None else (66, 56)
    right, top = 22, 46
    total = width + left + right, height + bottom + top
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI)
    axes = figure.add_axes(
        (
            left / total[0],
            bottom / total[1],
            width / total[0],
            height / total[1],
        )
    )
    rows, columns = images.shape[:2]
    # Places are counted in cells from the lower left one.
    extent = (-0.5, columns - 0.5, -0.5, rows - 0.5)
    _show(axes, sheet, extent=extent, aspect="auto")
    if values is None:
        axes.set_axis_off()
    else:
        ends = values[[0, -1]]
        whole = [k for k in range(-3, 4) if ends[0] + 0.2 < k < ends[1] - 0.2]
        ticks = [ends[0], *whole, ends[1]]
        places = np.interp(ticks, values, np.arange(len(values)))
        names = [f"{tick:.2f}".rstrip("0").rstrip(".") for tick in ticks]
        axes.set_xticks(places, names)
        axes.set_yticks(places, names)
        axes.set(xlabel="$z_1$", ylabel="$z_2$")
        plain(axes)
        axes.spines[:].set_visible(False)  # They would cover pixels.
    axes.set_title(title, size=9)
    return figure


def reconstructions(images: np.ndarray, reconstructed: np.ndarray) -> Figure:
    """Held-out images, their reconstructions, and the difference.

    Args:
      images, reconstructed: `[N, H, W, 1 or 3]` in [0, 1].
    """
    difference = (reconstructed - images).mean(-1)
    colours = colormaps["PuOr"]
    rows = [
        np.broadcast_to(images, (*images.shape[:3], 3)),
        np.broadcast_to(reconstructed, (*images.shape[:3], 3)),
        colours((difference + 1) / 2)[..., :3],
    ]
    figure, axes = _rows(
        np.stack(rows), ("image", "reconstruction", "difference")
    )
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), colours),
        ax=axes,
        shrink=0.3,
        anchor=(0, 0),
        aspect=6,
        pad=0.01,
        ticks=[-1, 1],
    )
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def training_curves(
    history: Sequence[dict[str, float]],
    per_dimension: np.ndarray,
    per_dimension_name: str,
    accuracies: Sequence[tuple[int, float]] = (),
) -> Figure:
    """The ELBO and its terms by epoch; how much each latent dimension tells, by
    which a collapsed one shows; and kNN accuracy, where classes are known.

    Args:
      history: rows of `metrics.csv`.
      per_dimension: `[D]`.
      per_dimension_name: what it is, with its unit.
      accuracies: pairs of an epoch and the accuracy at its end, in [0, 1].
    """
    bounds = [("elbo", "ELBO")]
    if history and "iwae" in history[0]:
        bounds.insert(0, ("iwae", "importance-weighted bound"))
    panels = [*bounds, ("reconstruction", "reconstruction"), ("kl", "KL")]
    total = len(panels) + 1 + bool(accuracies)
    columns = min(total, 3)
    rows = -(-total // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), dpi=DPI)
    # By hand: a layout engine takes longer than the drawing.
    room = {"left": 0.2 / columns, "right": 1 - 0.06 / columns}
    room |= {"bottom": 0.19 / rows, "top": 1 - 0.11 / rows}
    places = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw=room | {"wspace": 0.36, "hspace": 0.48},
    ).flatten()
    for axes in places[total:]:
        axes.set_axis_off()
    epochs = [row["epoch"] for row in history]
    for axes, (name, words) in zip(places, panels, strict=False):
        for prefix, label, colour in (
            ("", "training", TRAINING),
            ("val_", "validation", VALIDATION),
        ):
            values = [row[prefix + name] for row in history]
            # A single epoch is a dot, which no line shows.
            marker = "." if len(epochs) == 1 else None
            axes.plot(epochs, values, marker=marker, color=colour, label=label)
        axes.set_title(words, size=9)
        axes.set(xlabel="epoch", ylabel="nats per image")
        if np.abs(axes.get_ylim()).max() >= LONG:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # -60k
        plain(axes)
    places[0].legend(frameon=False, fontsize=8)
    axes = places[len(panels)]
    axes.bar(
        np.arange(1, len(per_dimension) + 1),
        np.sort(per_dimension)[::-1],
        color=VALIDATION,
        width=0.8,
    )
    axes.set_title(per_dimension_name, size=9)
    axes.set(xlabel="latent dimension, by size")
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain(axes)
    if accuracies:
        axes = places[total - 1]
        axes.plot(*zip(*accuracies, strict=True), color=VALIDATION, lw=1.6)
        axes.set_title("class from z, 5 nearest neighbours", size=9)
        axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
        plain(axes)
    return figure


def rows_of_images(
    images: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """Traversals or interpolations: a named row for each.

    Args:
      images: `[R, C, H, W, 1 or 3]` in [0, 1].
      names: of the R rows.
      title: above the picture.
    """
    figure, axes = _rows(images, names)
    axes.set_title(title, size=9)
    return figure


def _rows(images: np.ndarray, names: Sequence[str]):
    """A figure of named rows of images `[R, C, H, W, 1 or 3]`, and its axes."""
    rows, columns, height, width = images.shape[:4]
    cell = 0.6  # inches
    figure = Figure(
        figsize=(cell * columns + 1.6, cell * rows * height / width + 0.5),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.add_subplot()
    gap = max(1, width // 14)
    _show(axes, mosaic(images, gap))
    places = np.arange(rows) * (height + gap) + (height - 1) / 2
    axes.set_yticks(places, names, size=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def graphical_model() -> Figure:
    """The model as a directed graph: latent z and observed (shaded) x in a
    plate over N images, generative parameters theta, and, dashed, inference
    with parameters phi.
    """
    figure = Figure(figsize=(4.2, 2.7), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 4.2), ylim=(0, 2.7))
    axes.set_axis_off()
    axes.add_patch(Rectangle((1.3, 0.25), 1.6, 2.25, fill=False, ec=INK))
    axes.text(2.8, 0.33, "$N$", ha="right", size=11, color=INK)
    z, x, theta, phi = (2.1, 2.0), (2.1, 0.8), (3.7, 1.4), (0.5, 1.4)
    for (across, up), name, fill in (
        (z, r"$z_n$", "white"),
        (x, r"$x_n$", FAINT),
    ):
        axes.add_patch(Circle((across, up), 0.3, fc=fill, ec=INK, zorder=2))
        axes.text(across, up, name, ha="center", va="center", size=13)
    for place, name in ((theta, r"$\theta$"), (phi, r"$\phi$")):
        axes.text(*place, name, ha="center", va="center", size=14)
    for start, stop, style, bend in (
        (z, x, "-", 0.0),
        (theta, x, "-", 0.0),
        (theta, z, "-", 0.0),
        (x, z, "--", -0.45),
        (phi, z, "--", 0.0),
    ):
        ends = (15, 24) if start in (theta, phi) else (24, 24)
        axes.annotate(
            "",
            stop,
            start,
            arrowprops={
                "arrowstyle": "-|>",
                "ls": style,
                "color": INK,
                "shrinkA": ends[0],
                "shrinkB": ends[1],
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
    return figure


def mosaic(images: np.ndarray, gap: int = 0) -> np.ndarray:
    """`[R, C, H, W, channels]` -> one image `[R (H + gap), C (W + gap),
    channels]`, with white after each row and column.
    """
    white = 255 if images.dtype == np.uint8 else 1
    padding = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
    images = np.pad(images, padding, constant_values=white)
    rows, columns, height, width, channels = images.shape
    return images.transpose(0, 2, 1, 3, 4).reshape(
        rows * height, columns * width, channels
    )


def _show(axes, image: np.ndarray, **options: Any) -> None:
    """Draws an image `[H, W, 1 or 3]`: grey as it is measured, 0 black."""
    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    axes.imshow(
        np.broadcast_to(image, (*image.shape[:2], 3)),
        **{"interpolation": "nearest"} | options,
    )


def plain(axes) -> None:
    """Nothing around the data but what carries numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, color=FAINT)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
