"""The `figures/` directory of a run: snapshots, their pictures, and both
animations.
"""

import math
import pathlib
from collections.abc import Sequence

from PIL import Image

from vae_tf.data.files import written_atomically
from vae_tf.pictures import figures
from vae_tf.pictures.snapshots import Snapshot

FIGURES = "figures"
SNAPSHOTS = "snapshots"
ANIMATED = ("posterior", "prior_predictive")


def record(run_dir: pathlib.Path, snapshot: Snapshot) -> None:
    """Writes a snapshot, from which its pictures can be drawn at any time."""
    directory = run_dir / FIGURES / SNAPSHOTS
    directory.mkdir(parents=True, exist_ok=True)
    name = f"epoch-{snapshot.epoch:05d}.npz"
    with written_atomically(directory / name) as path:
        snapshot.save(path)


def recorded(run_dir: pathlib.Path, up_to: float = math.inf) -> list[Snapshot]:
    """The snapshots of a run in their order, none after epoch `up_to`; raises
    UserError where one is damaged.
    """
    paths = sorted((run_dir / FIGURES / SNAPSHOTS).glob("epoch-*.npz"))
    return [
        Snapshot.load(path)
        for path in paths
        if int(path.stem.removeprefix("epoch-")) <= up_to
    ]


def draw_latent(snapshot: Snapshot) -> dict[str, Image.Image]:
    """The two pictures that are animated."""
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
    (run_dir / FIGURES).mkdir(exist_ok=True)
    for name, picture in pictures.items():
        with written_atomically(run_dir / FIGURES / f"{name}.png") as path:
            path.write_bytes(figures.png(picture))


def animate(run_dir: pathlib.Path, snapshots: Sequence[Snapshot]) -> None:
    """Writes `figures/posterior.gif` and `figures/prior_predictive.gif`, a
    frame for each snapshot.
    """
    frames = [draw_latent(snapshot) for snapshot in snapshots]
    for name in ANIMATED:
        content = figures.gif([frame[name] for frame in frames])
        with written_atomically(run_dir / FIGURES / f"{name}.gif") as path:
            path.write_bytes(content)
