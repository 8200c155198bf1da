"""A contestant: our `fit`, as `train.py` runs it."""

import keras
import numpy as np

import vae_tf
from benchmarks.shared.stopwatch import fitting, model_arguments, serve
from vae_tf.data.splits import Source
from vae_tf.runs.training import steps_per_execution


def ours(settings):
    if settings.dtype != "float32":
        keras.config.set_dtype_policy(f"mixed_{settings.dtype}")
    with np.load(settings.images) as file:
        images = dict(file)
    source = Source("bits", "bits", 2, images, dict.fromkeys(images))
    data = vae_tf.Data(source, "none", settings.batch, 0)
    body = {
        "network": settings.network,
        "hidden_units": settings.hidden or None,
    }
    iaf, vamp = (settings.family == name for name in ("iaf", "vamp"))
    vae = vae_tf.VAE(
        vae_tf.Encoder(settings.latent, "iaf" if iaf else "mean_field", **body),
        vae_tf.Decoder(
            data.image_shape,
            **body | {"hidden_units": settings.hidden[::-1] or None},
        ),
        vae_tf.VampPrior(settings.latent, 500) if vamp else "standard_normal",
        vae_tf.IWAE(settings.samples) if settings.samples > 1 else "elbo",
    )
    vae.compile(
        keras.optimizers.RMSprop(1e-3, centered=True),
        jit_compile="auto",
        steps_per_execution=steps_per_execution(data),
    )
    return vae, data.train


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    serve(fitting(*ours(model_arguments(__doc__))))
