"""What a served model answers: one function of tensors per signature.

Every input and output has a leading batch axis N and row i of an output depends
on row i of the inputs alone, because TensorFlow Serving batches the requests of
different clients together. For the same reason a wrong value never raises in
the graph: it gives NaN in its own row. A wrong shape does raise: of it the
server can make no batch."""

import math
from collections.abc import Callable

import tensorflow as tf

from vae_tf import objectives
from vae_tf.decoder import log_prob_of_pixels
from vae_tf.evaluation.moments import importance_moments
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.refusals import in_support
from vae_tf.serving import rows
from vae_tf.vae import VAE

Signature = tuple[Callable[..., rows.Outputs], list[tf.TensorSpec]]
PNG_CHANNELS = (1, 2, 3, 4)
# Floats of an image's draws decoded together by `score`, which bounds its
# memory per image: eight draws of MNIST, one of 64x64 RGB.
FLOATS_AT_ONCE = 8192


def signatures(vae: VAE, num_importance_samples: int) -> dict[str, Signature]:
    """Signature name -> (function, specs of its inputs).

    `sample_png` is there for images that PNG knows, of 1 to 4 channels, and
    what takes images where the model has an encoder for those of clients.

    Args:
      vae: a trained model.
      num_importance_samples: K of `score`.
    """
    latent_dim, image_shape = vae.encoder.latent_dim, vae.decoder.image_shape

    def decode(z):
        """z [N, D] -> the mean of p(x|z) [N, H, W, C]."""
        z = rows.require(z, latent_dim)
        return {
            "image": rows.where(tf.math.is_finite(z), vae.decoder(z).mean())
        }

    def decode_sample(z, seed):
        """z [N, D] and seeds [N] -> x ~ p(x|z) [N, H, W, C]; of the z that
        `sample` gives for these seeds, the images that it gives.
        """
        z = rows.require(z, latent_dim)
        _, x_keys = z_and_x_keys(rows.keys_of(seed, "z", z))
        image = drawn(vae.decoder.parameters(z), x_keys)
        return {"image": rows.where(tf.math.is_finite(z), image)}

    def encode(image):
        """x [N, H, W, C] in [0, 1] -> mean and standard deviation of q(z|x),
        [N, D] each.
        """
        image = rows.require(image, *image_shape)
        posterior, valid = vae.encoder(image), rows.in_range(image)
        return {
            "mean": rows.where(valid, posterior.mean()),
            "stddev": rows.where(valid, posterior.stddev()),
        }

    def encode_sample(image, seed):
        """x [N, H, W, C] in [0, 1] and seeds [N] -> z ~ q(z|x) [N, D]."""
        image = rows.require(image, *image_shape)
        keys = rows.keys_of(seed, "image", image)
        noise = rows.normal(keys, rows.POSTERIOR, (1, latent_dim))
        (z,) = tf.unstack(
            objectives.reparameterize(
                vae.encoder(image), tf.transpose(noise, (1, 0, 2))
            ),
            num=1,
        )
        return {"z": rows.where(rows.in_range(image), z)}

    def sample(seed):
        """Seeds [N] -> z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N,
        H, W, C] each.
        """
        z, x_keys = latents(seed)
        parameters = vae.decoder.parameters(z)
        mean = vae.decoder.likelihood.distribution(parameters).mean()
        return {"z": z, "mean": mean, "image": drawn(parameters, x_keys)}

    def sample_png(seed):
        """Seeds [N] -> the mean of p(x|z), z ~ p(z), as PNG [N]."""
        z, _ = latents(seed)
        levels = tf.cast(tf.round(255 * vae.decoder(z).mean()), tf.uint8)
        return {
            "image_bytes": tf.map_fn(
                tf.io.encode_png,
                levels,
                fn_output_signature=tf.TensorSpec((), tf.string),
            )
        }

    def reconstruct(image):
        """x [N, H, W, C] in [0, 1] -> the mean of p(x|z) at the mean of q(z|x),
        [N, H, W, C].
        """
        image = rows.require(image, *image_shape)
        return {"image": rows.where(rows.in_range(image), vae(image))}

    def score(image, seed):
        """x [N, H, W, C] that p(x|z) gives probability, and seeds [N] -> the
        ELBO, its terms and log p(x), [N] each, in nats; see
        `importance.estimate`.
        """
        image = rows.require(image, *image_shape)
        return bounds(image, vae.encoder(image), seed)

    def explain(image, seed):
        """As `score`, and what the terms are made of: E_q[log p(x_i|z)] of each
        pixel [N, H, W, C] where the likelihood says it, and KL(q(z_d|x) ||
        p(z_d)) [N, D] where q and p factorise.
        """
        image = rows.require(image, *image_shape)
        posterior = vae.encoder(image)
        any_likelihood = vae.decoder(tf.zeros((1, latent_dim)))
        by_pixel = log_prob_of_pixels(any_likelihood, image[:1]) is not None
        outputs = bounds(image, posterior, seed, by_pixel)
        if vae.encoder.factorizes and vae.prior.factorizes:
            outputs["kl_per_dimension"] = rows.where(
                scored(image),
                objectives.kl_per_dimension(
                    posterior, vae.prior_distribution()
                ),
            )
        return outputs

    def bounds(image, posterior, seed, by_pixel=False):
        keys = rows.keys_of(seed, "image", image)
        at_once = max(1, FLOATS_AT_ONCE // math.prod(image_shape))
        at_once = min(at_once, num_importance_samples)

        def noise(chunk):
            # A row's own draws, whatever stands beside it: [at_once, N, D].
            return tf.transpose(
                rows.normal(keys, chunk, (at_once, latent_dim)), (1, 0, 2)
            )

        moments = importance_moments(
            vae,
            image,
            posterior,
            vae.prior_distribution(),
            num_importance_samples,
            at_once,
            noise,
            by_pixel=by_pixel,
        )
        log_k = tf.math.log(float(num_importance_samples))
        reconstruction, of_pixels = moments.reconstruction, {}
        if by_pixel:
            of_pixels["reconstruction_per_pixel"] = reconstruction
            reconstruction = tf.reduce_sum(reconstruction, (1, 2, 3))
        return {
            name: rows.where(scored(image), value)
            for name, value in {
                "elbo": reconstruction - moments.kl,
                "reconstruction": reconstruction,
                "kl": moments.kl,
                "log_marginal_likelihood": moments.log_sum - log_k,
                **of_pixels,
            }.items()
        }

    def scored(image):
        """Whether p(x|z) gives each pixel probability."""
        support = vae.decoder.likelihood.support
        return rows.in_range(image) & in_support(image, support)

    def latents(seed):
        """Seeds [N] -> z ~ p(z) [N, D], and keys [N, 2] for draws of x."""
        prior = vae.prior_distribution()
        z_keys, x_keys = z_and_x_keys(rows.keys(seed))
        # Row by row, because one key for the whole batch would let a row
        # depend on its place in it.
        z = tf.map_fn(
            lambda key: prior.sample(seed=key),
            z_keys,
            fn_output_signature=tf.TensorSpec((latent_dim,), tf.float32),
        )
        return z, x_keys

    def drawn(parameters, keys):
        """Parameters of p(x|z) of each row and keys [N, 2] -> x ~ p(x|z)."""
        return tf.map_fn(
            lambda row: vae.decoder.likelihood.distribution(row[0]).sample(
                seed=row[1]
            ),
            (parameters, keys),
            fn_output_signature=tf.TensorSpec(image_shape, tf.float32),
        )

    z = tf.TensorSpec((None, latent_dim), tf.float32, "z")
    image = tf.TensorSpec((None, *image_shape), tf.float32, "image")
    seed = tf.TensorSpec((None,), tf.int64, "seed")
    functions: dict[str, Signature] = {
        "decode": (decode, [z]),
        "serving_default": (decode, [z]),
        "decode_sample": (decode_sample, [z, seed]),
        "sample": (sample, [seed]),
    }
    if image_shape[-1] in PNG_CHANNELS:
        functions["sample_png"] = (sample_png, [seed])
    if isinstance(vae, LocalVAE):
        return functions
    return functions | {
        "encode": (encode, [image]),
        "encode_sample": (encode_sample, [image, seed]),
        "reconstruct": (reconstruct, [image]),
        "score": (score, [image, seed]),
        "explain": (explain, [image, seed]),
    }


def z_and_x_keys(keys: tf.Tensor) -> list[tf.Tensor]:
    """Keys [N, 2] -> those of draws of z and of x, [N, 2] each."""
    pairs = tf.map_fn(
        lambda key: tf.random.experimental.stateless_split(key, 2),
        keys,
        fn_output_signature=tf.TensorSpec((2, 2), tf.int32),
    )
    return tf.unstack(pairs, axis=1)
