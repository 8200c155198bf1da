"""Trains a variational autoencoder on images and writes a run directory.

python train.py --latent_dim 2
"""

import dataclasses

from vae_tf import command_line
from vae_tf.config import Config


def main(given):
    config = Config(**given)
    if config.resume and config.run_dir:
        # What was not named on the command line is as the run had it.
        config = dataclasses.replace(Config.load(config.run_dir), **given)
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    vae_tf.train(config)


if __name__ == "__main__":
    command_line.run(Config, main)
