"""A table of lambda_i = (loc_i, scale_i), one row for each image: mean-field
inference in the sense of datapoints that share nothing, not even an encoder.

A row is moved by an optimizer of its own, whose state stands beside it: what
other rows do leaves it as it is, bit for bit."""

from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf.inference.ascent import adam
from vae_tf.inference.families import MeanField, Parameters
from vae_tf.settings import UserError

SPREAD = 1e-2  # of the locations that training starts from
NO_ROW = (
    "images: expected numbers of rows [B] of the table that is trained with "
    "the decoder, because mean-field inference has parameters of q(z|x) for "
    "each training image and none for another, received {}; "
    "vae_tf.infer(vae, images, start='prior') finds a posterior for any image."
)


class Rows(NamedTuple):
    """Some rows of a table: lambda, and the state of its optimizer."""

    loc: tf.Tensor  # [B, D]
    scale: tf.Tensor  # [B, D]
    mean: tf.Tensor  # of the gradients so far, decayed, [B, 2D]
    square: tf.Tensor  # of their squares, [B, 2D]
    visits: tf.Tensor  # updates so far, [B]

    @property
    def posterior(self) -> tfd.Distribution:
        """q(z|x) = N(loc, diag(scale^2)), batch `[B]`, event `[D]`."""
        return MeanField.distribution(self._parameters)

    def moved(self, step: tf.Tensor) -> "Rows":
        """Rows after a step `[B, 2D]`, in the units of `MeanField.moved`."""
        loc, scale = tf.split(step, 2, axis=-1)
        return self._replace(
            **MeanField.moved(self._parameters, {"loc": loc, "scale": scale})
        )

    @property
    def _parameters(self) -> Parameters:
        return {"loc": self.loc, "scale": self.scale}

    def updated(self, gradient: tf.Tensor, rate: tf.Tensor | float) -> "Rows":
        """Rows after an update of Adam (`ascent.adam`), each with its own
        moments and its own count of them.

        Args:
          gradient: of each image's bound, in nats, by `moved`'s step, at no
            step, `[B, 2D]`.
          rate: of the step.
        """
        visits = self.visits + 1
        up, mean, square = adam(
            gradient,
            self.mean,
            self.square,
            tf.cast(visits, tf.float32)[:, tf.newaxis],
        )
        return self.moved(rate * up)._replace(
            mean=mean, square=square, visits=visits
        )


def as_numbers(rows) -> tf.Tensor:
    """Numbers of rows `[B]`. Before Keras calls a layer, or it would wrap the
    error into lines of its own.

    Raises:
      UserError: they are something else, such as images.
    """
    rows = tf.convert_to_tensor(rows)
    if not rows.dtype.is_integer or rows.shape.rank != 1:
        raise UserError(NO_ROW.format(f"{rows.dtype.name} {tuple(rows.shape)}"))
    return rows


@keras.saving.register_keras_serializable("vae_tf")
class PosteriorTable(keras.layers.Layer):
    """q(z|x_i) = N(z; loc_i, diag(scale_i^2)), free parameters for each image:
    2 N D numbers in all, in the place of an encoder. They start at the prior
    N(0, I), but for locations a hundredth of it apart.

    Args:
      latent_dim: D.
      num_images: N.

    Call arguments:
      rows: numbers of images, integers `[B]` from 0 to N - 1.

    Returns:
      `tfd.MultivariateNormalDiag`, batch `[B]`, event `[D]`.

    Raises:
      UserError: it is called on images.
    """

    factorizes = True
    one_pass_density = True

    def __init__(self, latent_dim: int, num_images: int, **kwargs):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.latent_dim = latent_dim
        self.num_images = num_images

    def build(self, input_shape):
        self.image_shape = tuple(input_shape[1:])
        count, dim, learned = self.num_images, self.latent_dim, self.trainable
        spread = keras.initializers.RandomNormal(stddev=SPREAD)
        self.loc = self.add_weight(
            (count, dim), spread, trainable=learned, name="loc"
        )
        self.scale = self.add_weight(
            (count, dim), "ones", trainable=learned, name="scale"
        )
        self.mean, self.square = (
            self.add_weight(
                (count, 2 * dim), "zeros", trainable=False, name=name
            )
            for name in ("mean", "square")
        )
        self.visits = self.add_weight(
            (count,), "zeros", "int32", trainable=False, name="visits"
        )
        super().build(input_shape)

    def examples(self, count: int) -> tf.Tensor:
        """Inputs of which a table makes a posterior, `[count]`."""
        return tf.zeros((count,), tf.int32)

    def __call__(self, rows, *args, **kwargs):
        return super().__call__(as_numbers(rows), *args, **kwargs)

    def call(self, rows) -> tfd.Distribution:
        return self.rows(rows).posterior

    def rows(self, numbers: tf.Tensor) -> Rows:
        """The rows of these numbers, integers `[B]`."""
        return Rows(*(tf.gather(values, numbers) for values in self._state))

    def assign(self, numbers: tf.Tensor, rows: Rows) -> None:
        """Writes rows to where these numbers, all different, say."""
        for values, new in zip(self._state, rows, strict=True):
            values.scatter_nd_update(numbers[:, tf.newaxis], new)

    @property
    def _state(self) -> Rows:
        found = (getattr(self, name) for name in Rows._fields)
        return Rows(*(variable.value for variable in found))

    def get_config(self):
        return super().get_config() | {
            "latent_dim": self.latent_dim,
            "num_images": self.num_images,
        }
