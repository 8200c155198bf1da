"""Measures a trained run: ELBO and importance-weighted log p(x), in nats per
image, with error bars.

python evaluate.py
"""

from vae_tf.commands.evaluate import main

if __name__ == "__main__":
    main()
