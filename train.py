"""Trains a variational autoencoder on images and writes a run directory.

python train.py --latent_dim 2
"""

from vae_tf.commands.train import main

if __name__ == "__main__":
    main()
