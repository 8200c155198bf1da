"""What a served model answers: one function of tensors per signature.

Every input and output has a leading batch axis N and row i of an output depends
on row i of the inputs alone, because TensorFlow Serving batches the requests of
different clients together. For the same reason a wrong value never raises in
the graph: it gives NaN in its own row. A wrong shape does raise: of it the
server can make no batch."""

import math
from collections.abc import Callable

import tensorflow as tf

from vae_tf.evaluation.moments import importance_moments
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.refusals import in_support
from vae_tf.vae import VAE

Signature = tuple[Callable[..., dict[str, tf.Tensor]], list[tf.TensorSpec]]
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
        z = _rows(z, latent_dim)
        return {
            "image": _rows_where(tf.math.is_finite(z), vae.decoder(z).mean())
        }

    def encode(image):
        """x [N, H, W, C] in [0, 1] -> mean and standard deviation of q(z|x),
        [N, D] each.
        """
        image = _rows(image, *image_shape)
        posterior = vae.encoder(image)
        return {
            "mean": _rows_where(_in_range(image), posterior.mean()),
            "stddev": _rows_where(_in_range(image), posterior.stddev()),
        }

    def sample(seed):
        """Seeds [N] -> z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N,
        H, W, C] each.
        """
        z, x_keys = latents(seed)
        likelihood, parameters = (
            vae.decoder.likelihood,
            vae.decoder.parameters(z),
        )
        image = tf.map_fn(
            lambda row: likelihood.distribution(row[0]).sample(seed=row[1]),
            (parameters, x_keys),
            fn_output_signature=tf.TensorSpec(image_shape, tf.float32),
        )
        mean = likelihood.distribution(parameters).mean()
        return {"z": z, "mean": mean, "image": image}

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
        image = _rows(image, *image_shape)
        return {"image": _rows_where(_in_range(image), vae(image))}

    def score(image, seed):
        """x [N, H, W, C] that p(x|z) gives probability, and seeds [N] -> the
        ELBO, its terms and log p(x), [N] each, in nats; see
        `importance.estimate`.
        """
        image, keys = _rows(image, *image_shape), _keys(seed)
        tf.debugging.assert_equal(
            tf.shape(image)[0],
            tf.shape(keys)[0],
            "image, seed: expected as many images as seeds",
        )
        at_once = max(1, FLOATS_AT_ONCE // math.prod(image_shape))
        at_once = min(at_once, num_importance_samples)

        def noise(chunk):
            # A row's own draws, whatever stands beside it: [at_once, N, D].
            rows = tf.map_fn(
                lambda key: tf.random.stateless_normal(
                    (at_once, latent_dim),
                    tf.random.experimental.stateless_fold_in(key, chunk),
                ),
                keys,
                fn_output_signature=tf.TensorSpec(
                    (at_once, latent_dim), tf.float32
                ),
            )
            return tf.transpose(rows, (1, 0, 2))

        moments = importance_moments(
            vae,
            image,
            vae.encoder(image),
            vae.prior_distribution(),
            num_importance_samples,
            at_once,
            noise,
        )
        log_k = tf.math.log(float(num_importance_samples))
        valid = _in_range(image) & in_support(
            image, vae.decoder.likelihood.support
        )
        return {
            name: _rows_where(valid, value)
            for name, value in {
                "elbo": moments.reconstruction - moments.kl,
                "reconstruction": moments.reconstruction,
                "kl": moments.kl,
                "log_marginal_likelihood": moments.log_sum - log_k,
            }.items()
        }

    def latents(seed):
        """Seeds [N] -> z ~ p(z) [N, D], and keys [N, 2] for draws of x."""
        prior = vae.prior_distribution()

        # Row by row, because one key for the whole batch would let a row
        # depend on its place in it.
        def draw(key):
            z_key, x_key = tf.unstack(
                tf.random.experimental.stateless_split(key, 2)
            )
            return prior.sample(seed=z_key), x_key

        return tf.map_fn(
            draw,
            _keys(seed),
            fn_output_signature=(
                tf.TensorSpec((latent_dim,), tf.float32),
                tf.TensorSpec((2,), tf.int32),
            ),
        )

    z = tf.TensorSpec((None, latent_dim), tf.float32, "z")
    image = tf.TensorSpec((None, *image_shape), tf.float32, "image")
    seed = tf.TensorSpec((None,), tf.int64, "seed")
    functions: dict[str, Signature] = {
        "decode": (decode, [z]),
        "serving_default": (decode, [z]),
        "encode": (encode, [image]),
        "sample": (sample, [seed]),
        "sample_png": (sample_png, [seed]),
        "reconstruct": (reconstruct, [image]),
        "score": (score, [image, seed]),
    }
    if image_shape[-1] not in PNG_CHANNELS:
        del functions["sample_png"]
    if isinstance(vae, LocalVAE):
        for name in ("encode", "reconstruct", "score"):
            del functions[name]
    return functions


def _rows(value: tf.Tensor, *row: int) -> tf.Tensor:
    """`value`, which is [N, *row] with N >= 1, or the request is an
    INVALID_ARGUMENT.
    """
    value = tf.ensure_shape(value, (None, *row))
    tf.debugging.assert_positive(
        tf.shape(value)[0], "expected at least one row, received none"
    )
    return value


def _keys(seed: tf.Tensor) -> tf.Tensor:
    """Seeds int64 [N] -> [N, 2]: an int64 is the pair of int32 that
    TensorFlow's stateless generators take.
    """
    return tf.bitcast(_rows(seed), tf.int32)


def _in_range(image: tf.Tensor) -> tf.Tensor:
    return (image >= 0) & (image <= 1)  # false for NaN


def _rows_where(valid: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """`output` [N, ...] as float32, with NaN in the rows where any of `valid`
    [N, ...] is false.
    """
    rows = tf.reduce_all(valid, axis=range(1, valid.shape.rank))
    rows = tf.reshape(
        rows, (-1, *[1] * (output.shape.rank - 1))
    )  # [N] -> [N, 1, ...]
    return tf.where(rows, tf.cast(output, tf.float32), float("nan"))
