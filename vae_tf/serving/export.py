"""Writes a model as `<export_dir>/<version>/`, checked before anyone can load
it.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import tensorflow as tf

from vae_tf.config import UserError
from vae_tf.serving import check
from vae_tf.serving.signatures import signatures
from vae_tf.vae import VAE


def export(
    vae: VAE, export_dir: str | os.PathLike, version: int | None = None
) -> pathlib.Path:
    """Writes a SavedModel with signatures `decode` (= `serving_default`),
    `encode` and `sample`.

    The bundle is written to a hidden directory, run in a fresh process as
    TensorFlow Serving would run it, and renamed to its version number only if
    every answer agrees with the model in memory.

    Args:
      vae: a trained model.
      export_dir: where the versions lie.
      version: a whole number >= 1; None for one past the highest there is.

    Returns:
      `<export_dir>/<version>`.

    Raises:
      UserError: the version exists or is no whole number >= 1, or the directory
        cannot be written.
      RuntimeError: the bundle failed its check, and was not published.
    """
    if version is not None and (type(version) is not int or version < 1):
        raise UserError(
            f"--version: expected an integer >= 1, received {version!r}."
        )
    export_dir = pathlib.Path(export_dir)
    try:
        export_dir.mkdir(parents=True, exist_ok=True)
        taken = [
            int(path.name)
            for path in export_dir.iterdir()
            if path.name.isdigit()
        ]
        version = max(taken, default=0) + 1 if version is None else version
        if version in taken:
            raise UserError(
                f"--version: expected one that {export_dir} does not hold, "
                f"received {version} "
                "(an existing version is never overwritten)."
            )
        hidden = export_dir / f".unpublished-{version}-{os.getpid()}"
        hidden.mkdir()
    except OSError as error:
        raise UserError(
            "--export_dir: expected a directory that can be written, received "
            f"{str(export_dir)!r} "
            f"({error.strerror})."
        ) from None
    try:
        bundle = hidden / "bundle"
        functions = signatures(vae)
        _save(functions, bundle)
        _check(functions, bundle, hidden / "cases.npz")
        os.rename(bundle, export_dir / str(version))
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return export_dir / str(version)


def _save(functions: dict, path: pathlib.Path) -> None:
    """Traces the signatures and saves them with the raw variables they read,
    each once.

    Saving an object that holds Keras 3 variables would write copies that the
    server's restore never fills."""
    concrete = {
        name: tf.function(
            function, input_signature=specs, autograph=False
        ).get_concrete_function()
        for name, (function, specs) in functions.items()
    }
    used = [v for traced in concrete.values() for v in traced.graph.variables]
    module = tf.Module()
    module.variables_used = list({id(v): v for v in used}.values())
    tf.saved_model.save(module, str(path), signatures=concrete)


def _check(functions: dict, path: pathlib.Path, cases: pathlib.Path) -> None:
    """Runs the bundle in a fresh process against the functions it was traced
    from, at N=1 and N=3.
    """
    arrays = {}
    for name, (function, specs) in functions.items():
        for rows in (1, 3):
            inputs = {spec.name: _example(spec, rows) for spec in specs}
            outputs = function(
                **{key: tf.constant(value) for key, value in inputs.items()}
            )
            arrays |= {
                f"{name}/{rows}/input/{key}": value
                for key, value in inputs.items()
            }
            arrays |= {
                f"{name}/{rows}/output/{key}": value.numpy()
                for key, value in outputs.items()
            }
    np.savez(cases, **arrays)
    result = subprocess.run(
        [sys.executable, check.__file__, str(path), str(cases)],
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


def _example(spec: tf.TensorSpec, rows: int) -> np.ndarray:
    """Valid inputs of a spec, latents, pixels or seeds, no two rows alike."""
    generator = np.random.default_rng(rows)
    shape = (rows, *spec.shape[1:])
    if spec.dtype.is_integer:
        return generator.integers(-(2**63), 2**63 - 1, shape)
    return generator.random(shape, np.float32)
