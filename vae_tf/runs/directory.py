"""A run directory: what is written where, and how it is read back."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import time
import warnings
import zipfile
from typing import BinaryIO, cast

import h5py
import keras

import vae_tf
from vae_tf.config import Config
from vae_tf.data.pipeline import Data
from vae_tf.runs import sums
from vae_tf.runs.averaging import averaged
from vae_tf.runs.building import build, load_data_of
from vae_tf.runs.reading import (
    CHECKPOINTS,
    CONFIG,
    config_of,
    is_left_over,
    read_run,
)
from vae_tf.runs.sums import sealed
from vae_tf.settings import UserError
from vae_tf.vae import VAE

METRICS = "metrics.csv"
BEST_WEIGHTS = "best.weights.h5"
LATEST = pathlib.Path("runs/latest")
HDF5 = 2**20  # bytes that a file of weights may have beside them
PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-probability",
    "tensorflow-datasets",
    "numpy",
)


def require_unused(run_dir: str | None) -> None:
    """Raises UserError unless a new run can be written to `run_dir`."""
    used: list[str] | str | None = None
    try:
        if run_dir and os.path.isdir(run_dir):
            used = [
                path.name
                for path in pathlib.Path(run_dir).iterdir()
                if not is_left_over(path)
            ]
    except OSError as error:
        used = error.strerror
    if used:
        raise UserError(
            "--run_dir: expected a new or empty directory, received "
            f"{run_dir!r} with "
            f"{used if isinstance(used, str) else sorted(used)[0]!r} in it "
            "(--resume goes on with a run)."
        )


def require_writable(run_dir: str | os.PathLike) -> None:
    """Raises UserError unless files can be written into a run."""
    checkpoints = pathlib.Path(run_dir) / CHECKPOINTS
    for path in (pathlib.Path(run_dir), checkpoints):
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(
                "--run_dir: expected a directory that can be written, received "
                f"{str(path)!r}."
            )


def create(config: Config) -> pathlib.Path:
    """Makes the directory of a new run; raises UserError where it cannot be
    written.
    """
    if config.run_dir and pathlib.Path(config.run_dir) == LATEST:
        raise UserError(
            "--run_dir: expected a name of its own, received "
            f"{config.run_dir!r}, which points to the newest run."
        )
    now = time.strftime("%Y%m%d-%H%M%S")
    dataset = cast(str, config.dataset)  # Named, now that its data is there.
    if os.path.isabs(dataset):  # A folder gives its name, an .npz its stem.
        path = pathlib.Path(dataset)
        dataset = path.stem if path.suffix.lower() == ".npz" else path.name
    # A version, as in mnist/3.0.1 or mnist:3.0.1, makes no folder.
    fresh = f"runs/{dataset.replace('/', '-').replace(':', '-')}-{now}"
    name = run_dir = pathlib.Path(config.run_dir or fresh)
    number = 1
    try:
        while True:
            try:
                run_dir.mkdir(parents=True, exist_ok=bool(config.run_dir))
                break
            except FileExistsError:
                if config.run_dir:
                    raise
                number += 1  # Another run began in this second.
                run_dir = name.with_name(f"{name.name}-{number}")
        (run_dir / CHECKPOINTS).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            "--run_dir: expected a directory that can be written, received "
            f"{str(run_dir)!r} ({error.strerror})."
        ) from None
    return run_dir


def write_config(run_dir: pathlib.Path, config: Config, data: Data) -> None:
    """Writes `config.json`: every setting, the data as it was, and the versions
    of what ran.
    """
    content = dataclasses.asdict(config) | {
        "data": data.describe(),
        "versions": versions(),
    }
    with sealed(run_dir / CONFIG) as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Of Python and the packages that a result depends on."""
    return {
        "vae_tf": vae_tf.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def point_latest_to(run_dir: pathlib.Path) -> None:
    """Makes `runs/latest` a link to the run, by a rename, so that it always
    points somewhere. Warns where that cannot be done: the run can do without.
    """
    link = LATEST.with_name(f".latest-{os.getpid()}")
    try:
        LATEST.parent.mkdir(exist_ok=True)
        # Both resolved, because `runs` may be a link itself.
        target, place = run_dir.resolve(), LATEST.parent.resolve()
        link.symlink_to(os.path.relpath(target, place))
        os.replace(link, LATEST)
    except OSError as error:
        with contextlib.suppress(OSError):
            link.unlink()
        warnings.warn(
            f"{LATEST} does not point to {run_dir}: {error.strerror}.",
            stacklevel=2,
        )


def bound(history: list[dict[str, float]]) -> str:
    """The validation bound that compares epochs: the objective's own."""
    return "val_iwae" if "val_iwae" in history[0] else "val_elbo"


def best(history: list[dict[str, float]]) -> dict[str, float]:
    """The row of the epoch with the highest validation bound, the first of
    equals.
    """
    return max(history, key=lambda row: row[bound(history)])


def write_metrics(
    run_dir: pathlib.Path, history: list[dict[str, float]]
) -> None:
    """Writes `metrics.csv`, a row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with sealed(run_dir / METRICS) as path:
        path.write_text(text.getvalue())


def read_metrics(run_dir: pathlib.Path) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, epochs and steps as integers; none where there
    is no such file.

    Raises:
      UserError: the file is damaged.
    """
    path = run_dir / METRICS
    try:
        history = [
            {
                name: (int if name in ("epoch", "step") else float)(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(io.StringIO(sums.read(path).decode()))
        ]
        if not history:
            raise ValueError("no row")
        if not all({"epoch", "seconds", "val_elbo"} <= set(r) for r in history):
            raise ValueError("columns are missing")
        return history
    except FileNotFoundError:
        return []
    except UserError:
        raise
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: expected a row of numbers per epoch, received a damaged "
            f"file ({error})."
        ) from None


def load(path: str | os.PathLike) -> VAE:
    """The best model of a run directory, in float32 however it was trained, or
    the model in a `.keras` file.

    Raises:
      UserError: there is no such run or file, or it is damaged.
    """
    path = pathlib.Path(path)
    if path.suffix == ".keras":
        return _load_keras(path)
    # In bfloat16, an image's result would depend on the batch it comes in.
    config = dataclasses.replace(config_of(path), mixed_precision=False)
    vae = build(config, read_run(path)["data"])
    load_best(path, vae)
    return vae


def save_best(run_dir: pathlib.Path, vae: VAE) -> None:
    """Writes a model's weights, or the average that its optimizer keeps of
    them, as the best of a run; raises UserError where there is no room. Of a
    model that is not compiled, in a third of the room and time.
    """
    with sealed(run_dir / BEST_WEIGHTS) as path:
        # HDF5 ends the process where it meets a full disk.
        size = sum(4 * math.prod(weight.shape) for weight in vae.weights)
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size + HDF5)
        with averaged(vae):
            vae.save_weights(path)


def load_best(run_dir: pathlib.Path, vae: VAE) -> None:
    """Sets a model to a run's best weights; raises UserError as `load` does."""
    path = run_dir / BEST_WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{path}: expected a run's best weights, received none."
        )
    sums.read(path)
    try:
        _require_packed(path)
        with warnings.catch_warnings():
            # Of an optimizer, which the weights are not written with.
            warnings.filterwarnings("ignore", "Skipping variable loading for")
            vae.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: expected the weights of this run, received a damaged "
            f"file ({str(error).strip().splitlines()[0]})."
        ) from None


def _require_packed(file: pathlib.Path | BinaryIO) -> None:
    """Raises ValueError where the arrays of an HDF5 file are larger than it, as
    Keras never writes them: they may fill any memory.
    """
    with h5py.File(file) as opened:
        sizes: list[int] = []
        opened.visititems(
            lambda _, item: sizes.append(getattr(item, "nbytes", 0))
        )
        packed = opened.id.get_filesize()
    if sum(sizes) > packed:
        raise ValueError(f"{sum(sizes):,} bytes of arrays in {packed:,}")


def _load_keras(path: pathlib.Path) -> VAE:
    if not path.is_file():
        raise UserError(f"{path}: expected a saved model, received none.")
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():
                raise ValueError(damaged)
            expanded = sum(part.file_size for part in file.infolist())
            if expanded > path.stat().st_size:  # Keras compresses nothing.
                raise ValueError(f"{expanded:,} bytes packed together")
            for name in file.namelist():
                if name.endswith(".h5"):
                    _require_packed(io.BytesIO(file.read(name)))
        model = keras.saving.load_model(path)
    except Exception as error:  # A damaged zip raises nearly anything.
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: expected a saved model, received a damaged file, or one "
            f"of another package ({words[0]})."
        ) from error
    if not isinstance(model, VAE):
        raise UserError(
            f"{path}: expected a saved VAE, received a {type(model).__name__}."
        )
    return model


def load_data_of_run(
    run_dir: str | os.PathLike, data_dir: str | None = None
) -> Data:
    """The data that a run was trained on, from `data_dir` if its own is
    elsewhere today.

    Raises:
      UserError: there is no such run, or its data is out of reach or has
        changed.
    """
    data = load_data_of(config_of(run_dir), data_dir)
    recorded, found = read_run(run_dir)["data"], data.describe()
    if any(found.get(key) != value for key, value in recorded.items()):
        raise UserError(
            f"--data_dir: expected the data of the run, {recorded['variant']} "
            f"with {recorded['checksum']}, received {found['variant']} with "
            f"{found['checksum']}."
        )
    return data
