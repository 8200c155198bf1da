"""A finished run, drawn and written up: its figures, and `report.html`, one
page that needs nothing beside it.
"""

import base64
import dataclasses
import html
import importlib.resources
import os
import pathlib
import string
import warnings

import numpy as np

import vae_tf
from vae_tf.config import SPLITS
from vae_tf.pictures import (
    figures,
    gallery,
    latent_points,
    sheet,
    snapshots,
)
from vae_tf.runs import report_plane
from vae_tf.runs.directory import (
    METRICS,
    best,
    bound,
    load,
    load_data_of_run,
    read_metrics,
    require_writable,
)
from vae_tf.runs.reading import (
    HEALTH,
    config_of,
    read_evaluation,
    read_run,
)
from vae_tf.runs.sums import written
from vae_tf.settings import UserError
from vae_tf.vae import VAE

REPORT = "report.html"
# Settings that are places on this machine: a page is shown to others.
PLACES = ("run_dir", "data_dir")
MAX_TRAVERSALS = 10  # latent dimensions, those that tell most
NUM_INTERPOLATIONS = 3  # pairs of images
# The figures in their order: name, words for who cannot see it, caption.
FIGURES = (
    (
        "posterior.gif",
        "animation of latent samples over training, coloured by class",
        "The posterior taking shape: one sample of q(z|x) for each held-out "
        "image, from before the first step to the end.",
    ),
    (
        "prior_predictive.gif",
        "animation of images generated from the prior over training",
        "The prior predictive over training: what p(x|z) draws for z of the "
        "prior.",
    ),
    (
        "posterior.png",
        "scatter of latent samples of held-out images, coloured by class",
        "The posterior at the best epoch; behind it, the prior.",
    ),
    (
        "prior_predictive.png",
        "generated images",
        "The prior predictive at the best epoch.",
    ),
    (
        "reconstructions.png",
        "rows of images, their reconstructions, and the difference",
        "Held-out images; the mean of p(x|z) at the mean of q(z|x); the second "
        "minus the first.",
    ),
    (
        "training_curves.png",
        "curves of ELBO, reconstruction and KL by epoch, and bars of how much "
        "each latent dimension tells",
        "The ELBO and its two terms, in nats per image, and how much each "
        "latent dimension tells: a collapsed one tells nothing.",
    ),
    (
        "traversals.png",
        "rows of images that change along one latent dimension each",
        "Traversals: from the posterior's mean of one image, each latent "
        "dimension in turn takes the values from -3 to 3.",
    ),
    (
        "interpolations.png",
        "rows of images on the way from one image to another",
        "Interpolations between the posterior's means of two images, straight "
        "and along a sphere about the origin.",
    ),
)
MEASURES = (
    "bars of the KL of each latent dimension, the importance-weighted bound "
    "against the number of draws, and a histogram of Pareto k-hat",
    "How many nats each latent dimension holds; the importance-weighted bound "
    "from one draw, the ELBO, to all, towards log p(x); and the shape of the "
    "tail of each image's weights: to the right of the line, log p(x) and its "
    "error are not to be trusted.",
)
GAPS = (
    "bars from the ELBO to log p(x) for each family of q, a scatter of the "
    "ELBO of the encoder's q and of the best one, and contours of p(z|x) "
    "beside both",
    "What the encoder misses of the best q of its family (amortization gap; of "
    "another family, with what that is richer by), and what a family misses of "
    "p(z|x) (approximation gap); the same image by image; and, in two latent "
    "dimensions, p(z|x) of some images beside the encoder's q and the best.",
)


def report_run(
    run_dir: str | os.PathLike,
    data_dir: str | None = None,
    prior_predictive: str = "samples",
    spacing: str = "equal",
) -> pathlib.Path:
    """`redraw` of a run's best model, and `write`.

    Args:
      run_dir: a run directory.
      data_dir: TFDS data directory, where it is not that of the run.
      prior_predictive, spacing: see `snapshots.prior_predictive`.

    Returns:
      The page's path.

    Raises:
      UserError: there is no such run, it is damaged, or its data is out of
        reach or has changed.
    """
    require_writable(run_dir)
    vae = load(run_dir)
    held = snapshots.held_out(load_data_of_run(run_dir, data_dir))
    redraw(run_dir, vae, held, prior_predictive, spacing)
    return write(run_dir)


def redraw(
    run_dir: str | os.PathLike,
    vae: VAE,
    held: snapshots.HeldOut,
    shows: str = "samples",
    spacing: str = "equal",
) -> None:
    """Draws every figure of a finished run anew: the animations from what was
    recorded in training, the rest from its best model.

    Args:
      run_dir: of the run.
      vae: its best model.
      held: from `snapshots.held_out` of its data.
      shows, spacing: see `snapshots.prior_predictive`.
    """
    run_dir = pathlib.Path(run_dir)
    history = read_metrics(run_dir)
    if not history:
        raise UserError(
            f"{run_dir / METRICS}: expected a row per epoch, received none "
            "(--resume writes it anew)."
        )
    recorded = gallery.recorded(run_dir, len(history))
    last = snapshots.take(
        vae,
        held,
        int(best(history)["epoch"]),
        recorded[-1] if recorded else None,
        shows,
        spacing,
    )
    pictures = gallery.draw([*recorded, last], history)
    pictures["traversals"] = figures.drawn(_traversals(vae, held, last))
    if len(held.images) > 1:  # A single one has nowhere to go.
        pictures["interpolations"] = figures.drawn(_interpolations(vae, held))
    gallery.write(run_dir, pictures)
    if recorded:
        gallery.animate(run_dir, recorded)
    gallery.record_plane(run_dir, sheet.take(vae, held, last))


def _traversals(vae, held, snapshot):
    order = np.argsort(snapshot.per_dimension)[::-1][:MAX_TRAVERSALS]
    values = latent_points.axis(13)
    images = snapshots.traversals(vae, held.images[0], values)[order]
    return figures.rows_of_images(
        images,
        [f"$z_{{{dimension + 1}}}$" for dimension in order],
        "from $z_d = -3$ to $3$, for each dimension $d$ by what it tells",
    )


def _interpolations(vae, held):
    rows, names = [], []
    for pair in range(min(NUM_INTERPOLATIONS, len(held.images) // 2)):
        for path in latent_points.PATHS:
            first, last = held.images[2 * pair : 2 * pair + 2]
            rows.append(snapshots.interpolations(vae, first, last, path=path))
            names.append(path)
    return figures.rows_of_images(
        np.stack(rows), names, "from one image to another"
    )


def write(run_dir: str | os.PathLike) -> pathlib.Path:
    """Writes `report.html` of what is in a run: settings, metrics, evaluations,
    the latent plane and figures.

    Returns:
      The page's path.

    Raises:
      UserError: there is no such run, or it is damaged.
    """
    run_dir = pathlib.Path(run_dir)
    # A setting that its version did not know is as it was then.
    run = dataclasses.asdict(config_of(run_dir)) | read_run(run_dir)
    history, measured = read_metrics(run_dir), _measured(run_dir)
    data = run["data"]
    template = importlib.resources.files("vae_tf.runs") / REPORT
    page = string.Template(template.read_text("utf-8")).substitute(
        title=html.escape(
            f"A variational autoencoder of {data['variant']}, "
            f"D = {run['latent_dim']}"
        ),
        subtitle=html.escape(
            f"{run_dir.resolve().name}: q(z|x) {run['posterior']}, p(z) "
            f"{run['prior']}, p(x|z) {run['likelihood']}, objective "
            f"{run['objective']}, network {run['network']}; "
            f"{' x '.join(map(str, data['image_shape']))} pixels, "
            f"{data['levels']} levels, binarization {run['binarization']}, "
            f"dequantization {run['dequantization']}."
        ),
        results=_results(run_dir, history, measured),
        plane=report_plane.section(run_dir),
        composition=_compositions(run_dir, measured),
        inference=_inference(run_dir, measured),
        figures="\n".join(
            _figure(run_dir / gallery.FIGURES / name, words, caption)
            for name, words, caption in FIGURES
            if (run_dir / gallery.FIGURES / name).is_file()
        ),
        settings=_table(
            (name, html.escape(str(value)))
            for name, value in (
                *_settings(run),
                *((f"data: {k}", v) for k, v in data.items()),
                *run["versions"].items(),
            )
        ),
        version=vae_tf.__version__,
    )
    path = run_dir / REPORT
    with written(path) as temporary:
        temporary.write_text(page, "utf-8")
    return path


def _settings(run: dict) -> list[tuple[str, object]]:
    """Each setting, a folder of images by its name alone."""
    settings = {
        name: value
        for name, value in run.items()
        if name not in PLACES and not isinstance(value, dict)
    }
    dataset = settings["dataset"]
    if dataset and os.path.isabs(dataset):
        settings["dataset"] = os.path.basename(dataset)
    return list(settings.items())


def _results(
    run_dir: pathlib.Path, history: list[dict], measured: list[dict]
) -> str:
    """What training reached, and what `evaluate.py` measured."""
    parts = []
    if history:
        top, name = best(history), bound(history)
        parts.append(
            f"<p>Training: validation {name.removeprefix('val_').upper()} "
            f"{top[name]:.2f} nats per image at epoch {top['epoch']} of "
            f"{len(history)}, after {history[-1]['seconds'] / 60:.1f} minutes "
            f"in all (ELBO {top['val_elbo']:.2f} = reconstruction "
            f"{top['val_reconstruction']:.2f} - KL {top['val_kl']:.2f}).</p>"
        )
    recorded = gallery.recorded(run_dir, len(history))
    snapshot = recorded[-1] if recorded else None
    if snapshot is not None and np.isfinite(snapshot.accuracy):
        parts.append(
            "<p>Classes in latent space: the 5 nearest neighbours of a "
            "sampled z name the class of "
            f"{snapshot.accuracy:.1%} of {len(snapshot.points)} validation "
            f"images (epoch {snapshot.epoch}).</p>"
        )
    for found in measured:
        parts.append(
            f"<h3>Measured on the {found['split']} split, in nats per image"
            f"</h3>{_values(found)}"
        )
    log = run_dir / HEALTH
    if log.is_file():
        lines = html.escape(log.read_text("utf-8", "replace"))
        parts.append(f"<h3>What training said of itself</h3><pre>{lines}</pre>")
    if not measured:
        parts.append(
            "<p>log p(x) has not been measured: <code>python evaluate.py"
            "</code> does, with the <code>--run_dir</code> of this run.</p>"
        )
    return "\n".join(parts)


def _measured(run_dir: pathlib.Path) -> list[dict]:
    found = []
    for split in SPLITS:
        try:
            found.append(read_evaluation(run_dir, split))
        except FileNotFoundError:
            pass
        except UserError as error:  # The others are shown all the same.
            warnings.warn(str(error), stacklevel=2)
    return found


def _compositions(run_dir: pathlib.Path, measured: list[dict]) -> str:
    """What the ELBO of each measured split is made of."""
    parts = _parts(run_dir, measured, "decomposition", "evaluation", MEASURES)
    return "\n".join(parts or ["<p>It has not been taken apart yet.</p>"])


def _inference(run_dir: pathlib.Path, measured: list[dict]) -> str:
    """What separates the ELBO of each measured split from log p(x), where that
    was asked for.
    """
    parts = _parts(run_dir, measured, "inference_gaps", "gaps", GAPS)
    head = ["<h2>From the ELBO to log p(x)</h2>"] if parts else []
    return "\n".join(head + parts)


def _parts(
    run_dir: pathlib.Path,
    measured: list[dict],
    name: str,
    picture: str,
    words: tuple[str, str],
) -> list[str]:
    """A table of what an evaluation says under this name, and its picture, for
    each split that has it.
    """
    parts = []
    for found in measured:
        if name not in found:  # of an earlier version, or not asked for
            continue
        split, values = found["split"], found[name]
        parts.append(
            f"<h3>The first {values['num_examples']} images of the {split} "
            f"split, in nats per image</h3>{_values(values)}"
        )
        path = run_dir / gallery.FIGURES / f"{picture}_{split}.png"
        if path.is_file():
            parts.append(_figure(path, *words))
    return parts


def _values(found: dict) -> str:
    """A table of what is one value or an interval."""
    rows = [
        (name.replace("_", " "), _number(value))
        for name, value in found.items()
        if not (
            value is None
            or isinstance(value, dict)
            or (isinstance(value, list) and not name.endswith("interval"))
        )
    ]
    return f"<div class='scroll'>{_table(rows, 'number')}</div>"


def _number(value) -> str:
    if isinstance(value, list):  # the ends of an interval
        return " to ".join(map(_number, value))
    return (
        f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))
    )


def _table(rows, kind: str = "") -> str:
    cells = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th>"
        f"<td class='{kind}'>{value}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _figure(path: pathlib.Path, words: str, caption: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    wide = path.stem in (
        "reconstructions",
        "training_curves",
        "traversals",
        "interpolations",
    ) or path.stem.startswith(("evaluation_", "gaps_"))
    return (
        f"<figure{' class=wide' if wide else ''}>"
        f'<img src="data:image/{path.suffix[1:]};base64,{content}" '
        f'alt="{html.escape(words)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
