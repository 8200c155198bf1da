"""What a served model answers: one function of tensors per signature.

Every input and output has a leading batch axis N and row i of an output depends
on row i of the inputs alone, because TensorFlow Serving batches the requests of
different clients together. For the same reason a wrong value never raises in
the graph: it gives NaN in its own row."""

from collections.abc import Callable

import tensorflow as tf

from vae_tf.vae import VAE

Signature = tuple[Callable[..., dict[str, tf.Tensor]], list[tf.TensorSpec]]


def signatures(vae: VAE) -> dict[str, Signature]:
    """Signature name -> (function, specs of its inputs)."""
    latent_dim, image_shape = vae.encoder.latent_dim, vae.decoder.image_shape

    def decode(z):
        """z [N, D] -> the mean of p(x|z) [N, H, W, C]."""
        z = tf.ensure_shape(z, (None, latent_dim))
        return {
            "image": _rows_where(tf.math.is_finite(z), vae.decoder(z).mean())
        }

    def encode(image):
        """x [N, H, W, C] in [0, 1] -> mean and standard deviation of q(z|x),
        [N, D] each.
        """
        image = tf.ensure_shape(image, (None, *image_shape))
        posterior = vae.encoder(image)
        valid = (image >= 0) & (image <= 1)  # false for NaN
        return {
            "mean": _rows_where(valid, posterior.mean()),
            "stddev": _rows_where(valid, posterior.stddev()),
        }

    def sample(seed):
        """Seeds [N] -> z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N,
        H, W, C] each.
        """
        # An int64 is the pair of int32 that TensorFlow's stateless generators
        # take; row by row, because one key for the whole batch would let a row
        # depend on its place in it.
        seeds = tf.map_fn(
            lambda row: tf.random.experimental.stateless_split(row, 2),
            tf.bitcast(
                tf.ensure_shape(seed, (None,)), tf.int32
            ),  # [N] -> [N, 2]
            fn_output_signature=tf.TensorSpec((2, 2), tf.int32),
        )
        prior = vae.prior_distribution()
        z = tf.map_fn(
            lambda row: prior.sample(seed=row[0]),
            seeds,
            fn_output_signature=tf.TensorSpec((latent_dim,), tf.float32),
        )
        parameters = vae.decoder.parameters(z)
        image = tf.map_fn(
            lambda row: vae.decoder.likelihood.distribution(row[0]).sample(
                seed=row[1][1]
            ),
            (parameters, seeds),
            fn_output_signature=tf.TensorSpec(image_shape, tf.float32),
        )
        return {
            "z": z,
            "mean": vae.decoder.likelihood.distribution(parameters).mean(),
            "image": image,
        }

    z = tf.TensorSpec((None, latent_dim), tf.float32, "z")
    return {
        "decode": (decode, [z]),
        "serving_default": (decode, [z]),
        "encode": (
            encode,
            [tf.TensorSpec((None, *image_shape), tf.float32, "image")],
        ),
        "sample": (sample, [tf.TensorSpec((None,), tf.int64, "seed")]),
    }


def _rows_where(valid: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """`output` [N, ...], with NaN in the rows where any of `valid` [N, ...] is
    false.
    """
    rows = tf.reduce_all(valid, axis=range(1, valid.shape.rank))
    rows = tf.reshape(
        rows, (-1, *[1] * (output.shape.rank - 1))
    )  # [N] -> [N, 1, ...]
    return tf.where(rows, output, float("nan"))
