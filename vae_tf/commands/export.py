"""Exports a trained run as a SavedModel that TensorFlow Serving runs.

python export.py, or vae-export where the package is installed
"""

import dataclasses
from typing import Any

from vae_tf import command_line
from vae_tf.serving.versions import MAX_VERSION
from vae_tf.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Export(Settings):
    run_dir: str = setting("runs/latest", "the run to export", path=True)
    export_dir: str = setting(
        "saved_models/vae", "where the versions lie", path=True
    )
    version: int | None = setting(
        None,
        "number of the version (unset: one past the highest)",
        minimum=1,
        maximum=MAX_VERSION,
    )
    num_importance_samples: int = setting(
        64, "K, draws of z for each image that is scored", minimum=1
    )
    keep: int | None = setting(
        None,
        "the highest so many versions stay, with the one written (unset: all)",
        minimum=1,
    )


def export(given: dict[str, Any]) -> None:
    settings = Export(**given)
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    with command_line.without_wrappers():
        from vae_tf import VAE  # noqa: F401  # with all of Keras
    path = vae_tf.export_run(**dataclasses.asdict(settings))
    print(f"Exported {settings.run_dir} to {path}.")


def main() -> None:
    command_line.run(Export, export, __doc__)


if __name__ == "__main__":
    main()
