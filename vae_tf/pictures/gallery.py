"""The `figures/` directory of a run: snapshots, their pictures, and both
animations. Where one cannot be written or read, that is said, and what it shows
goes on without it. What draws is imported where it is needed: a first step of
training does not wait for it.
"""

import contextlib
import math
import pathlib
import re
import warnings
from collections.abc import Sequence

from PIL import Image

from vae_tf.data.files import written_atomically
from vae_tf.pictures.sheet import Sheet
from vae_tf.pictures.snapshots import Snapshot
from vae_tf.settings import UserError

FIGURES = "figures"
SNAPSHOTS = "snapshots"
PLANE = "plane.npz"
ANIMATED = ("posterior", "prior_predictive")


def record(run_dir: pathlib.Path, snapshot: Snapshot) -> None:
    """Writes a snapshot, from which its pictures can be drawn at any time."""
    name = f"epoch-{snapshot.epoch:05d}.npz"
    _save(run_dir / FIGURES / SNAPSHOTS / name, snapshot)


def record_plane(run_dir: pathlib.Path, sheet: Sheet) -> None:
    """Writes a sheet, from which a page shows the plane."""
    _save(run_dir / FIGURES / PLANE, sheet)


def _save(path: pathlib.Path, arrays: Snapshot | Sheet) -> None:
    with _or_without(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as temporary:
            arrays.save(temporary)


def recorded_plane(run_dir: pathlib.Path) -> Sheet | None:
    """The sheet of a run; None where there is none, or a damaged one."""
    path = run_dir / FIGURES / PLANE
    if path.is_file():
        with _or_without(path):
            return Sheet.load(path)
    return None


@contextlib.contextmanager
def _or_without(path: pathlib.Path):
    try:
        yield
    except (OSError, UserError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        warnings.warn(f"{path}: no picture ({reason}).", stacklevel=4)


def recorded(run_dir: pathlib.Path, up_to: float = math.inf) -> list[Snapshot]:
    """The snapshots of a run in their order, none after epoch `up_to`, and none
    of those that are damaged.
    """
    found = []
    for path in sorted((run_dir / FIGURES / SNAPSHOTS).glob("epoch-*.npz")):
        number = re.fullmatch(r"epoch-(\d+)", path.stem)
        if number and int(number[1]) <= up_to:
            with _or_without(path):
                found.append(Snapshot.load(path))
    return found


def draw_latent(snapshot: Snapshot) -> dict[str, Image.Image]:
    """The two pictures that are animated."""
    from vae_tf.pictures import figures

    latent_dim = len(snapshot.plane)
    when = f"epoch {snapshot.epoch}, ELBO {snapshot.elbo:.1f} nats per image"
    names = {
        1: ("$z$", "image, in order"),
        2: ("$z_1$", "$z_2$"),
    }.get(
        latent_dim,
        tuple(f"principal axis {k} of the means of $q(z|x)$" for k in (1, 2)),
    )
    words = f"One $z \\sim q(z|x)$ for each of {len(snapshot.points)} images"
    if latent_dim > 2:
        words += f",\nPCA of the posterior's means in {latent_dim} dimensions"
    posterior = figures.posterior(
        snapshot.points,
        snapshot.labels if len(snapshot.labels) else None,
        f"{words}\n{when}",
        names,
        snapshot.prior_points if len(snapshot.prior_points) else None,
    )
    on_grid = len(snapshot.values) > 0
    where = "over a grid of $z$" if on_grid else "at draws from $p(z)$"
    predictive = figures.prior_predictive(
        snapshot.prior_predictive,
        f"Prior predictive: $p(x|z)$ {where}\n{when}",
        snapshot.values if on_grid else None,
    )
    return {
        "posterior": figures.drawn(posterior),
        "prior_predictive": figures.drawn(predictive),
    }


def draw(
    recorded: Sequence[Snapshot], history: Sequence[dict[str, float]]
) -> dict[str, Image.Image]:
    """Every picture of a run in training, by its name.

    Args:
      recorded: the run's snapshots, at least one; the last one is drawn.
      history: rows of `metrics.csv`.
    """
    from vae_tf.pictures import figures

    snapshot = recorded[-1]
    accuracies = [
        (each.epoch, each.accuracy)
        for each in recorded
        if math.isfinite(each.accuracy)
    ]
    return draw_latent(snapshot) | {
        "reconstructions": figures.drawn(
            figures.reconstructions(snapshot.images, snapshot.reconstructions)
        ),
        "training_curves": figures.drawn(
            figures.training_curves(
                history,
                snapshot.per_dimension,
                snapshot.per_dimension_name,
                accuracies,
            )
        ),
    }


def write(run_dir: pathlib.Path, pictures: dict[str, Image.Image]) -> None:
    """Writes pictures to `figures/<name>.png`."""
    from vae_tf.pictures import figures

    for name, picture in pictures.items():
        _write(run_dir / FIGURES / f"{name}.png", figures.png(picture))


def _write(path: pathlib.Path, content: bytes) -> None:
    with _or_without(path):
        path.parent.mkdir(exist_ok=True)
        with written_atomically(path) as temporary:
            temporary.write_bytes(content)


def animate(run_dir: pathlib.Path, snapshots: Sequence[Snapshot]) -> None:
    """Writes `figures/posterior.gif` and `figures/prior_predictive.gif`, a
    frame for each snapshot.
    """
    from vae_tf.pictures import figures

    frames = [draw_latent(snapshot) for snapshot in snapshots]
    for name in ANIMATED:
        content = figures.gif([frame[name] for frame in frames])
        _write(run_dir / FIGURES / f"{name}.gif", content)
