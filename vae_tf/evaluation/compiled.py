"""Functions of a model, compiled once for each model."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vae_tf.executions import layers_suit_xla
from vae_tf.vae import VAE


def compiled(vae: VAE, function: Callable) -> Any:
    """`function(vae, ...)` without its first argument, compiled with XLA where
    that suits its layers (`executions.layers_suit_xla`), and kept with the
    model: it reads the model's variables anew at each call, and is traced anew
    for other shapes and other Python values.
    """
    name = f"_compiled_{function.__module__}.{function.__qualname__}"
    if name not in vars(vae):
        # Without AutoGraph, which makes errors of a user's its own; and no
        # lambda, because TensorFlow counts tracings, of which it complains, by
        # the line of code, and all of them would share this one.
        traced = tf.function(
            functools.partial(function, vae),
            jit_compile=layers_suit_xla(vae),
            autograph=False,
        )
        object.__setattr__(vae, name, traced)  # past Keras' tracking
    return vars(vae)[name]
