"""What a served model answers: one function of tensors per signature.

Every input and output has a leading batch axis N and row i of an output depends
on row i of the inputs alone, because TensorFlow Serving batches the requests of
different clients together. For the same reason a wrong value never raises in
the graph: it gives NaN in its own row, or zeros beside `valid`. A wrong shape
does raise: of it the server can make no batch."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from vae_tf import objectives
from vae_tf.data.conversion import Conversion
from vae_tf.decoder import log_prob_of_pixels
from vae_tf.evaluation.moments import importance_moments
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.refusals import in_support
from vae_tf.serving import image_bytes, rows
from vae_tf.vae import VAE

# What `tf.function` gives, and its inputs.
Signature = tuple[Any, list[tf.TensorSpec]]
SCORE = ("elbo", "reconstruction", "kl", "log_marginal_likelihood")
PNG_CHANNELS, FILE_CHANNELS = (1, 2, 3, 4), (1, 3)
# Floats of an image's draws decoded together by `score`, which bounds its
# memory per image: eight draws of MNIST, one of 64x64 RGB.
FLOATS_AT_ONCE = 8192


def signatures(
    vae: VAE,
    num_importance_samples: int,
    trained_on: Mapping[str, Any] | None = None,
) -> dict[str, Signature]:
    """Signature name -> (function, specs of its inputs).

    `sample_png` is there for images that PNG knows, of 1 to 4 channels, what
    takes images where the model has an encoder for those of clients, and what
    takes files where images are grey or RGB.

    Args:
      vae: a trained model.
      num_importance_samples: K of `score`.
      trained_on: what is known of its data, as `Data.describe` tells it.
    """
    latent_dim, image_shape = vae.encoder.latent_dim, vae.decoder.image_shape
    conversion = Conversion.of(vae.decoder.likelihood.support, trained_on or {})
    z_spec = tf.TensorSpec((None, latent_dim), tf.float32, "z")
    image_spec = tf.TensorSpec((None, *image_shape), tf.float32, "image")
    seed_spec = tf.TensorSpec((None,), tf.int64, "seed")
    file_spec = tf.TensorSpec((None,), tf.string, "image_bytes")

    @_traced_once(z_spec)
    def decode(z):
        """z [N, D] -> the mean of p(x|z) [N, H, W, C]."""
        z = rows.require(z, latent_dim)
        return {
            "image": rows.where(tf.math.is_finite(z), vae.decoder(z).mean())
        }

    @_traced_once(z_spec, seed_spec)
    def decode_sample(z, seed):
        """z [N, D] and seeds [N] -> x ~ p(x|z) [N, H, W, C]; of the z that
        `sample` gives for these seeds, the images that it gives.
        """
        z = rows.require(z, latent_dim)
        _, x_keys = rows.z_and_x_keys(rows.keys_of(seed, "z", z))
        image = drawn(vae.decoder.parameters(z), x_keys)
        return {"image": rows.where(tf.math.is_finite(z), image)}

    @_traced_once(image_spec)
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

    @_traced_once(image_spec, seed_spec)
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

    @_traced_once(seed_spec)
    def sample(seed):
        """Seeds [N] -> z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N,
        H, W, C] each.
        """
        z, x_keys = latents(seed)
        parameters = vae.decoder.parameters(z)
        mean = vae.decoder.likelihood.distribution(parameters).mean()
        return {"z": z, "mean": mean, "image": drawn(parameters, x_keys)}

    @_traced_once(seed_spec)
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

    @_traced_once(image_spec)
    def reconstruct(image):
        """x [N, H, W, C] in [0, 1] -> the mean of p(x|z) at the mean of q(z|x),
        [N, H, W, C].
        """
        image = rows.require(image, *image_shape)
        return {"image": rows.where(rows.in_range(image), vae(image))}

    @_traced_once(image_spec, seed_spec)
    def explain(image, seed):
        """As `score`, and what the terms are made of: E_q[log p(x_i|z)] of each
        pixel [N, H, W, C] where the likelihood says it, and KL(q(z_d|x) ||
        p(z_d)) [N, D] where q and p factorise.
        """
        image = rows.require(image, *image_shape)
        keys = rows.keys_of(seed, "image", image)
        posterior, prior = vae.encoder(image), vae.prior_distribution()
        at_once = max(1, FLOATS_AT_ONCE // math.prod(image_shape))
        at_once = min(at_once, num_importance_samples)

        def noise(chunk):
            # A row's own draws, whatever stands beside it: [at_once, N, D].
            return tf.transpose(
                rows.normal(keys, chunk, (at_once, latent_dim)), (1, 0, 2)
            )

        any_likelihood = vae.decoder(tf.zeros((1, latent_dim)))
        by_pixel = log_prob_of_pixels(any_likelihood, image[:1]) is not None
        moments = importance_moments(
            vae,
            image,
            posterior,
            prior,
            num_importance_samples,
            at_once,
            noise,
            by_pixel=by_pixel,
        )
        reconstruction, parts = moments.reconstruction, {}
        if by_pixel:
            parts["reconstruction_per_pixel"] = reconstruction
            reconstruction = tf.reduce_sum(reconstruction, (1, 2, 3))
        if vae.encoder.factorizes and vae.prior.factorizes:
            parts["kl_per_dimension"] = objectives.kl_per_dimension(
                posterior, prior
            )
        log_k = tf.math.log(float(num_importance_samples))
        valid = rows.in_range(image) & in_support(
            image, vae.decoder.likelihood.support
        )
        return {
            name: rows.where(valid, value)
            for name, value in {
                "elbo": reconstruction - moments.kl,
                "reconstruction": reconstruction,
                "kl": moments.kl,
                "log_marginal_likelihood": moments.log_sum - log_k,
                **parts,
            }.items()
        }

    @_traced_once(image_spec, seed_spec)
    def score(image, seed):
        """x [N, H, W, C] that p(x|z) gives probability, and seeds [N] -> the
        ELBO, its terms and log p(x), [N] each, in nats; see
        `importance.estimate`.
        """
        explained = explain(image, seed)
        return {name: explained[name] for name in SCORE}

    @_traced_once(file_spec, seed_spec)
    def encode_bytes(image_bytes, seed):
        """Files [N] and seeds [N] -> `encode` of the images in them, the images
        [N, H, W, C], and whether each file holds one [N].
        """
        image = read(image_bytes, seed)
        return rows.finite(encode(image) | {"image": image})

    @_traced_once(file_spec, seed_spec)
    def score_bytes(image_bytes, seed):
        """As `encode_bytes`, with `score`."""
        image = read(image_bytes, seed)
        return rows.finite(score(image, seed) | {"image": image})

    @_traced_once(file_spec, seed_spec)
    def read(files, seed):
        files = rows.require(files)
        keys = rows.keys_of(seed, "image_bytes", files)
        return image_bytes.images(files, keys, image_shape, conversion)

    def latents(seed):
        """Seeds [N] -> z ~ p(z) [N, D], and keys [N, 2] for draws of x."""
        prior = vae.prior_distribution()
        z_keys, x_keys = rows.z_and_x_keys(rows.keys(seed))
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

    functions = [decode, decode_sample, sample]
    if image_shape[-1] in PNG_CHANNELS:
        functions.append(sample_png)
    if not isinstance(vae, LocalVAE):
        functions += [encode, encode_sample, reconstruct, score, explain]
        functions += [_finite(one) for one in (encode, reconstruct, score)]
        if image_shape[-1] in FILE_CHANNELS:
            functions += [encode_bytes, score_bytes]
    named = {one.python_function.__name__: one for one in functions}
    return {
        name: (one, list(one.input_signature))
        for name, one in {"serving_default": decode, **named}.items()
    }


def _traced_once(*specs: tf.TensorSpec) -> Callable[[Callable], Any]:
    """A function that other signatures share: in a bundle, each time that it is
    written costs every signature's first run.
    """
    return functools.partial(
        tf.function, input_signature=specs, autograph=False
    )


def _finite(function):
    """A signature, with `rows.finite` outputs."""

    @functools.wraps(function.python_function)  # which names its inputs
    def finite(*inputs):
        return rows.finite(function(*inputs))

    finite.__name__ = f"{function.python_function.__name__}_finite"
    return _traced_once(*function.input_signature)(finite)
