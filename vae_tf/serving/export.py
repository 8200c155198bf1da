"""Writes a model as `<export_dir>/<version>/`, checked before anyone can load
it.
"""

import errno
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from vae_tf.runs.directory import load
from vae_tf.runs.reading import config_of, read_evaluation, read_run
from vae_tf.serving import check, manifest, versions, warmup
from vae_tf.serving.signatures import Signature, signatures
from vae_tf.settings import UserError
from vae_tf.vae import VAE

MEASURED = (  # of evaluation-test.json
    "num_examples",
    "elbo",
    "log_marginal_likelihood",
    "standard_error",
    "num_importance_samples",
    "units",
)
WRONG = {"f": np.nan, "i": -1, "O": b"no image"}  # by kind of dtype


def export(
    vae: VAE,
    export_dir: str | os.PathLike,
    version: int | None = None,
    num_importance_samples: int = 64,
    keep: int | None = None,
    trained_on: dict[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a SavedModel with the signatures of `serving.signatures`, of which
    `decode` is the default.

    The bundle is written to a hidden directory, run in a fresh process as
    TensorFlow Serving would run it, and renamed to its version number only if
    every answer agrees with the model in memory.

    Args:
      vae: a trained model.
      export_dir: where the versions lie.
      version: a whole number >= 1 and below 2^63; None for one past the
        highest there is.
      num_importance_samples: K of `score`.
      keep: the highest so many versions stay, with the one written; None for
        all.
      trained_on: what the manifest shall say of the data and the run.

    Returns:
      `<export_dir>/<version>`.

    Raises:
      UserError: `vae` is none, the version exists, an argument is no whole
        number >= 1, or the directory cannot be written, as none that lies
        elsewhere (`s3://...`) can.
      RuntimeError: the bundle failed its check, and was not published.
    """
    if not isinstance(vae, VAE):
        raise UserError(
            f"vae: expected a VAE, received a {type(vae).__name__}."
        )
    for name, number in (
        ("num_importance_samples", num_importance_samples),
        ("keep", keep),
    ):
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(
                f"--{name}: expected an integer >= 1, received {number!r}."
            )
    export_dir = versions.place(export_dir)
    versions.require_unused(export_dir, version)
    versions.warn_of_others(export_dir)
    functions = signatures(vae, num_importance_samples, trained_on)
    traced = _traced(functions)
    with versions.workplace(export_dir) as hidden:
        bundle = hidden / "bundle"
        try:
            _save(traced, bundle)
            (bundle / check.WARMUP).parent.mkdir()
            warmup.write(functions, bundle / check.WARMUP)
        except tf.errors.OpError as error:  # a full disk, in TensorFlow's words
            raise OSError(errno.EIO, error.message.splitlines()[0]) from error
        manifest.write(
            bundle, vae, functions, traced, num_importance_samples, trained_on
        )
        _check(functions, bundle, hidden / "cases.npz")
        if there := versions.published(export_dir):
            manifest.warn_of_another(bundle, there[max(there)])
        path = versions.publish(bundle, export_dir, version)
    if keep:
        versions.prune(export_dir, keep, also=int(path.name))
    return path


def export_run(
    run_dir: str | os.PathLike, export_dir: str | os.PathLike, **settings
) -> pathlib.Path:
    """`export` of a run's best model, with a manifest that says on what data
    it was trained and what it is worth.

    Args:
      run_dir: a run directory.
      export_dir: where the versions lie.
      **settings: of `export`.

    Raises:
      UserError: there is no such run, or it is damaged; or as `export` does.
    """
    vae, run = load(run_dir), read_run(run_dir)
    try:
        test = read_evaluation(pathlib.Path(run_dir), "test")
        test = {name: test.get(name) for name in MEASURED}
    except FileNotFoundError:
        test = None
    trained_on = {
        **run["data"],
        "seed": config_of(run_dir).seed,
        "versions": run["versions"],
        "test": test,
    }
    return export(vae, export_dir, trained_on=trained_on, **settings)


def _traced(functions: dict[str, Signature]) -> dict[str, Any]:
    return {
        name: function.get_concrete_function()
        for name, (function, _) in functions.items()
    }


def _save(traced: dict[str, Any], path: pathlib.Path) -> None:
    """Saves the signatures with the raw variables they read, each once.

    Saving an object that holds Keras 3 variables would write copies that the
    server's restore never fills."""
    used = [v for one in traced.values() for v in one.graph.variables]
    module = tf.Module()
    module.variables_used = list({id(v): v for v in used}.values())
    tf.saved_model.save(module, str(path), signatures=traced)


def _check(
    functions: dict[str, Signature], bundle: pathlib.Path, cases: pathlib.Path
) -> None:
    """Runs the bundle in a fresh process against the functions it was traced
    from: one row, three, and three of which one is no number, or no image.
    """
    arrays = {}
    for name, (function, specs) in functions.items():
        for case, rows in (("one", 1), ("three", 3), ("wrong", 3)):
            inputs = warmup.examples(specs, rows)
            if case == "wrong":
                for value in inputs.values():
                    value[1] = WRONG[value.dtype.kind]
            outputs = function(**_tensors(inputs))
            for side, values in (("input", inputs), ("output", outputs)):
                for key, value in values.items():
                    arrays[f"{name}/{case}/{side}/{key}"] = np.array(value)
    # Strings, too, without pickles: neither PNG nor JPEG ends with a zero.
    arrays = {
        name: value.astype(bytes) if value.dtype == object else value
        for name, value in arrays.items()
    }
    np.savez(cases, **arrays)  # type: ignore[arg-type]  # NumPy's stub
    result = subprocess.run(
        [sys.executable, check.__file__, str(bundle), str(cases)],
        # On the CPU: this process may hold the memory of the GPU.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(
            "The exported bundle failed its check and was not "
            f"published.\n{result.stderr}"
        )


def _tensors(inputs: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {key: tf.constant(value) for key, value in inputs.items()}
