"""Functions of a model, compiled once for each model."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vae_tf.vae import VAE


def compiled(vae: VAE, function: Callable) -> Any:
    """`function(vae, ...)` without its first argument, compiled with XLA and
    kept with the model: it reads the model's variables anew at each call, and
    is traced anew for other shapes and other Python values.
    """
    name = f"_compiled_{function.__module__}.{function.__qualname__}"
    if name not in vars(vae):
        # Without AutoGraph, which makes errors of a user's its own.
        traced = tf.function(
            lambda *args: function(vae, *args),
            jit_compile=True,
            autograph=False,
        )
        object.__setattr__(vae, name, traced)  # past Keras' tracking
    return vars(vae)[name]
