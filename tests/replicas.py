"""Run by test_executions in a process of its own, whose CPU is several devices:
prints, for each model, or for those named, how far one update on all of them is
from one device's.
"""

import contextlib
import json
import sys

import keras
import numpy as np
import tensorflow as tf

DEVICES = int(sys.argv[1])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * DEVICES,
)

from small import random_bits, small_vae  # noqa: E402

import vae_tf  # noqa: E402 (a device is cut before it is used)
from vae_tf.config import SPLITS  # noqa: E402
from vae_tf.data.splits import Source  # noqa: E402

MODELS = {
    "elbo": small_vae,
    "alternate_free_bits": lambda: small_vae(
        train_variables="alternate", objective=vae_tf.ELBO(2, free_bits=0.3)
    ),
    "iwae_vamp": lambda: small_vae(prior="vamp", objective=vae_tf.IWAE(3)),
}
# Of 22 images in batches of 8, the last 6 are shared out unevenly.
IMAGES = random_bits(22)
GREY = np.random.default_rng(1).integers(0, 5, IMAGES.shape, np.uint8)


def feed(name):
    """What a model is trained on: of one, images that each device makes; of
    another, images beside something else that has an axis.
    """
    if name == "alternate_free_bits":
        batches = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8)
        return {"x": batches.map(lambda x: {"a": tf.zeros((4,)), "image": x})}
    if name != "elbo":
        return {"x": IMAGES, "batch_size": 8}
    images = dict.fromkeys(SPLITS, GREY)
    source = Source("grey", "grey", 5, images, dict.fromkeys(SPLITS))
    return {"x": vae_tf.Data(source, "dynamic", 8, 0).train}


def trained(name, strategy=None):
    with strategy.scope() if strategy else contextlib.nullcontext():
        vae = MODELS[name]()
        # With SGD, a gradient n times too large is an update n times too large.
        vae.compile(
            keras.optimizers.SGD(0.1),
            run_eagerly=strategy is None,
            steps_per_execution=1 if strategy is None else 2,
        )
    settings = {"shuffle": False, "verbose": 0}
    # Validation begins with a batch that is shared out unevenly.
    held = tf.data.Dataset.from_tensor_slices(IMAGES[:9]).batch(5)
    history = vae.fit(
        **feed(name), epochs=2, validation_data=held, **settings
    ).history
    logs = [history[name] for name in ("loss", "kl", "val_loss", "val_kl")]
    return vae.get_weights(), logs


def main():
    names = [f"CPU:{number}" for number in range(DEVICES)]
    strategy = tf.distribute.MirroredStrategy(names)
    apart = {}
    for name in sys.argv[2:] or MODELS:
        ours, logs = trained(name, strategy)
        theirs, expected = trained(name)
        pairs = zip([*ours, *logs], [*theirs, *expected], strict=True)
        apart[name] = max(
            float(np.max(np.abs(np.subtract(one, two)))) for one, two in pairs
        )
    print(json.dumps(apart))


if __name__ == "__main__":
    main()
