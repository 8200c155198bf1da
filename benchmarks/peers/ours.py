"""A contestant of `benchmarks.peers`: a run of `train.py`, and what
`benchmarks.peers.scoring` reads of it."""

import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.noise import key, standard_normal
from vae_tf.objectives import log_posterior, reparameterize


def written(
    config: vae_tf.Config, out: str, num_examples: int, num_samples: int
) -> list[float]:
    """Trains, and writes the arrays; seconds at the end of each epoch."""
    run = vae_tf.train(config)
    data = vae_tf.load_data(config.dataset, data_dir=config.data_dir)
    images = next(iter(data.in_order("test", num_examples, num_examples)))
    np.savez(out, **arrays(run.vae, images, num_samples))
    return [row["seconds"] for row in run.history]


def arrays(vae: vae_tf.VAE, images: tf.Tensor, num_samples: int) -> dict:
    posterior = vae.encoder(images)
    shape = (num_samples, len(images), vae.encoder.latent_dim)
    noise = standard_normal(shape, key("importance", 0))
    found = {
        "z": reparameterize(posterior, noise),
        "log_q": log_posterior(posterior, noise),
    }
    head = vae.decoder.likelihood
    layers = [
        (dense.kernel, dense.bias) for dense in vae.decoder.network.hidden
    ]
    layers.append((head.linear.kernel, tf.reshape(head.bias, [-1])))
    for number, (kernel, bias) in enumerate(layers):
        found |= {f"kernel_{number}": kernel, f"bias_{number}": bias}
    if vae.prior.uses_encoder:
        components = vae.encoder(vae.prior.pseudo_inputs())
        found["prior_loc"] = components.mean()
        found["prior_scale"] = components.stddev()
    return {
        name: np.array(tf.convert_to_tensor(v)) for name, v in found.items()
    }
