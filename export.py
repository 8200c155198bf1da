"""Exports a trained run as a SavedModel that TensorFlow Serving runs.

python export.py
"""

from vae_tf.commands.export import main

if __name__ == "__main__":
    main()
