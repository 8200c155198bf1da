"""Runs side by side: reads what was measured of each. No TensorFlow here."""

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_tf.config import require_split
from vae_tf.evaluation import comparison
from vae_tf.evaluation.comparison import Comparison, Measured
from vae_tf.runs import sums
from vae_tf.runs.reading import (
    config_of,
    evaluation_path,
    read_evaluation,
    read_run,
    to_measure,
)
from vae_tf.settings import UserError

# Settings that say where a run is and what it draws, or which data it reads:
# that is compared as it was found, not as it was named.
NOT_OF_THE_MODEL = (
    "dataset",
    "data_dir",
    "binarization",
    "dequantization",
    "image_size",
    "channels",
    "figures_every",
    "tensorboard",
    "run_dir",
    "resume",
)

# What an evaluation says of how it was made.
CONDITIONS = (
    "dataset",
    "binarization",
    "dequantization",
    "split",
    "num_examples",
    "likelihood",
    "num_importance_samples",
)


def compare(*run_dirs: str | os.PathLike, split: str = "test") -> Comparison:
    """Ranks runs by log p(x), in nats per image, as `evaluate_run` measured it,
    with paired differences from the first: `print` shows the table.

    Args:
      run_dirs: two or more run directories.
      split: "train", "validation" or "test".

    Raises:
      UserError: there is no such run or split, a run has not been measured on
        it or is damaged, or the runs' numbers do not compare
        (`comparison.compare`).
    """
    require_split(split)
    return comparison.compare(
        [_measured(pathlib.Path(run_dir), split) for run_dir in run_dirs]
    )


def _measured(run_dir: pathlib.Path, split: str) -> Measured:
    if not (run_dir / "config.json").is_file():
        raise UserError(
            "--compare: expected run directories, each with a config.json, "
            f"received {str(run_dir)!r}."
        )
    settings = dataclasses.asdict(config_of(run_dir))
    data = read_run(run_dir)["data"]
    path = evaluation_path(run_dir, split)
    makes_it = f"{to_measure(run_dir, split)} makes it"
    try:
        found = read_evaluation(run_dir, split)
        conditions = {name: found[name] for name in CONDITIONS}
        with np.load(io.BytesIO(sums.read(path.with_suffix(".npz")))) as file:
            elbo = _by_image("elbo", found, file)
            log_p = None  # where only the ELBO was measured
            if found.get("log_marginal_likelihood") is not None:
                log_p = _by_image("log_marginal_likelihood", found, file)
    except FileNotFoundError as error:
        raise UserError(
            f"--compare: expected runs measured on the {split} split, received "
            f"{str(run_dir)!r} without "
            f"{pathlib.Path(error.filename).name}: {makes_it}."
        ) from None
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(
            f"{path}: expected what evaluate.py writes, and an .npz beside it, "
            f"received a damaged file ({error}): {makes_it} anew."
        ) from None
    # Version 0.1 knew one method, and did not name it.
    conditions["method"] = found.get("method", "importance")
    conditions |= {name: data[name] for name in ("image_shape", "checksum")}
    return Measured(
        str(run_dir),
        {k: v for k, v in settings.items() if k not in NOT_OF_THE_MODEL},
        conditions,
        elbo,
        log_p,
    )


def _by_image(
    name: str, found: dict[str, Any], file: Mapping[str, np.ndarray]
) -> np.ndarray:
    """`[N]`, nats; raises ValueError where the average is of another
    measurement.
    """
    values = file[name]
    if len(values) != found["num_examples"] or not np.isclose(
        values.mean(), found[name], rtol=1e-6
    ):
        raise ValueError(f"{name} of the two files differs")
    return values
