"""The report's latent plane: held-out images as points, and beside them what
the decoder makes of the z under the pointer, without a server.

The points are drawn here; `report_plane.html` finds the decoded mean between
the four nearest tiles of the run's sheet.
"""

import base64
import html
import importlib.resources
import json
import pathlib
import string

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from vae_tf.pictures import figures, gallery
from vae_tf.pictures.sheet import Sheet

SIDE = 1000  # of the drawing, in its own units


def section(run_dir: pathlib.Path) -> str:
    """The part of the page that shows the plane; nothing where a run has no
    sheet, or a damaged one.
    """
    sheet = gallery.recorded_plane(run_dir)
    if sheet is None:
        return ""
    rows, columns = sheet.tiles.shape[:2]
    line = sheet.latent_dim == 1
    wide = sheet.latent_dim > 2
    template = importlib.resources.files("vae_tf.runs") / "report_plane.html"
    across, up = (
        ("z", "image, in order")
        if line
        else ("principal axis 1", "principal axis 2")
        if wide
        else ("z<tspan dy='10'>1</tspan>", "z<tspan dy='10'>2</tspan>")
    )
    known = {
        "rows": rows,
        "columns": columns,
        "low": sheet.low.tolist(),
        "high": sheet.high.tolist(),
        "line": line,
        "name": "on the plane, " if wide else "z = ",
    }
    return string.Template(template.read_text("utf-8")).substitute(
        known=html.escape(json.dumps(known)),
        drawing="\n".join([*_prior(sheet), *_points(sheet), *_ticks(sheet)]),
        across=across,
        up=up,
        tiles=base64.b64encode(sheet.png()).decode(),
        legend=_legend(sheet),
        caption=html.escape(_caption(sheet)),
    )


def _caption(sheet: Sheet) -> str:
    rows, columns = sheet.tiles.shape[:2]
    words = f"One sample of q(z|x) for each of {len(sheet.points)} images"
    words += " that were held out"
    if len(sheet.labels):
        words += ", coloured by class"
    words += (
        "; in grey, draws from p(z). "
        if len(sheet.prior_points)
        else "; circles at 1, 2 and 3 standard deviations of p(z). "
    )
    if sheet.latent_dim > 2:
        words += (
            f"Of {sheet.latent_dim} dimensions, the plane through the mean of "
            "the posterior's means along which these vary most (PCA): points "
            "are projected onto it, and what is decoded lies on it. "
        )
    values = columns if rows == 1 else f"{columns} x {rows}"
    words += (
        "The image is the mean of p(x|z) at the z under the pointer, a finger "
        f"or the arrow keys: decoded at {values} values of z, interpolated "
        "between them."
    )
    height, width = sheet.pixels
    shown = sheet.tiles.shape[2:4]
    if shown != (height, width):
        words += f" Of {height} x {width} pixels, {shown[0]} x {shown[1]} show."
    return words


def _colours(classes: np.ndarray) -> list[str]:
    """Those of the figures: ten tell classes apart, of more they tell their
    order.
    """
    if len(classes) <= len(figures.COLOURS):
        return figures.COLOURS[: len(classes)]
    shades = colormaps["cividis"](np.linspace(0, 1, len(classes)))
    return [to_hex(shade) for shade in shades]


def _points(sheet: Sheet) -> list[str]:
    """A path of dots for each class."""
    if not len(sheet.labels):
        return [_dots(sheet, sheet.points, f"stroke='{figures.COLOURS[0]}'")]
    classes = np.unique(sheet.labels)
    return [
        _dots(
            sheet,
            sheet.points[sheet.labels == name],
            f"stroke='{colour}' data-class='{name}'",
        )
        for name, colour in zip(classes, _colours(classes), strict=True)
    ]


def _dots(sheet: Sheet, points: np.ndarray, attributes: str) -> str:
    places = "".join(f"M{x} {y}h0" for x, y in _places(sheet, points))
    return f"<path class='dots' {attributes} d='{places}'/>"


def _places(sheet: Sheet, points: np.ndarray) -> np.ndarray:
    """Points `[N, 2]` in whole units of the drawing, from its upper left."""
    shares = (points - sheet.low) / (sheet.high - sheet.low)
    shares[:, 1] = 1 - shares[:, 1]
    return np.rint(SIDE * shares).astype(int)


def _prior(sheet: Sheet) -> list[str]:
    if len(sheet.prior_points):
        return [_dots(sheet, sheet.prior_points, "stroke='#dddddd'")]
    ((x, y),) = _places(sheet, np.zeros((1, 2)))
    unit = SIDE / (sheet.high - sheet.low)[0]
    return [
        f"<circle class='prior' cx='{x}' cy='{y}' r='{sd * unit:.0f}'/>"
        for sd in (1, 2, 3)
    ]


def _ticks(sheet: Sheet) -> list[str]:
    """Numbers along both axes; along one, where there is one dimension."""
    parts = []
    for axis in range(1 if sheet.latent_dim == 1 else 2):
        low, high = sheet.low[axis], sheet.high[axis]
        for value in MaxNLocator(8, steps=(1, 2, 5, 10)).tick_values(low, high):
            if not low <= value <= high:
                continue
            point = sheet.low.copy()
            point[axis] = value
            ((x, y),) = _places(sheet, point[np.newaxis])
            end, place = (
                (f"h-{SIDE // 90}", f"x='{x - 18}' y='{y + 9}' class='up'")
                if axis
                else (f"v{SIDE // 90}", f"x='{x}' y='{y + 40}' class='across'")
            )
            parts.append(
                f"<path class='tick' d='M{x} {y}{end}'/>"
                f"<text {place}>{value:g}</text>"
            )
    return parts


def _legend(sheet: Sheet) -> str:
    classes = np.unique(sheet.labels)
    if not len(classes):
        return ""
    colours = _colours(classes)
    if len(classes) > len(figures.COLOURS):
        ramp = ", ".join(colours[:: len(colours) // len(figures.COLOURS)])
        return (
            f"<p class='legend'>class {classes[0]} <i class='ramp' "
            f"style='background: linear-gradient(to right, {ramp})'></i> "
            f"{classes[-1]}</p>"
        )
    entries = "".join(
        f"<span><i style='background: {colour}'></i>{name}</span> "
        for name, colour in zip(classes, colours, strict=True)
    )
    return f"<p class='legend'>class {entries}</p>"
