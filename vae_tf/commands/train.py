"""Trains a variational autoencoder on images and writes a run directory.

python train.py --latent_dim 2, or vae-train where the package is installed
"""

import dataclasses
from typing import Any

from vae_tf import command_line
from vae_tf.config import Config
from vae_tf.runs.reading import config_of, is_begun


def train(given: dict[str, Any]) -> None:
    config = Config(**given)
    if config.resume and config.run_dir and is_begun(config.run_dir):
        # What was not named on the command line is as the run had it.
        config = dataclasses.replace(config_of(config.run_dir), **given)
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    with command_line.without_wrappers():
        from vae_tf import VAE  # noqa: F401  # with all of Keras
    vae_tf.train(config)


def main() -> None:
    command_line.run(Config, train, __doc__)


if __name__ == "__main__":
    main()
