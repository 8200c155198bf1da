"""Families of the likelihood p(x|z): heads from features to a distribution over
images.

A head has two halves, so that a parameter tensor can cross a boundary (serving,
reshaping) that a distribution cannot: `call` gives parameters, `distribution`
reads them. Logarithms of probabilities (of bits, of levels) and of densities
(of continuous pixels) are both in nats, and are never comparable."""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from vae_tf.pixels import (
    FusedBernoulli,
    QuantizedLogistic,
    StableContinuousBernoulli,
    continuous_bernoulli_mean,
)

MIN_NORMAL_SCALE = 1e-3  # The noise of dequantised 8-bit pixels has 1.1e-3.
MIN_LOGISTIC_SCALE = 1e-3  # A quarter of the distance between two levels.


class Likelihood(keras.layers.Layer):
    """Base of the heads: parameters of p(x|z) are a linear map of the features,
    plus a bias per pixel.

    A subclass says what its pixels are (`support`) and how many parameters each
    has (`parameter_shape`), and gives `distribution` and `adapt`. Arguments and
    call are the same for all.

    Args:
      image_shape: `(H, W, C)`.

    Call arguments:
      features: `[B, F]`, or `[B, H, W, F]` of a convolutional body, whose
        linear map is then the same at every pixel.

    Returns:
      Parameters `[B, H, W, C, ...]`, float32 whatever computes the features.
    """

    # "binary": x in {0, 1}; "levels": x in {0, 1/255, ..., 1}, both with
    # probabilities; "interval": x in [0, 1], with a density.
    support: str
    parameter_shape: tuple[int, ...] = ()  # of one pixel's parameters

    def __init__(self, image_shape, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)

    def build(self, input_shape):
        height, width, channels = self.image_shape
        spatial = len(input_shape) == 4
        if spatial and tuple(input_shape[1:3]) != (height, width):
            raise ValueError(
                f"features: expected shape (B, {height}, {width}, F) or (B, F),"
                f" received {tuple(input_shape)}."
            )
        per_map = (channels,) if spatial else self.image_shape
        units = math.prod(per_map + self.parameter_shape)
        self.linear = keras.layers.Dense(
            units, use_bias=False, dtype=self.dtype_policy
        )
        self.linear.build(input_shape)
        self.bias = self.add_weight(
            shape=self.image_shape + self.parameter_shape,
            initializer="zeros",
            autocast=False,
            name="bias",
        )
        super().build(input_shape)

    def call(self, features):
        bias = tf.reshape(self.bias, [-1])
        linear = tf.cast(self.linear(features), tf.float32)
        flat = tf.reshape(linear, [-1, bias.shape[0]]) + bias
        shape = (-1, *self.image_shape, *self.parameter_shape)
        return tf.reshape(flat, shape)

    def distribution(self, parameters: tf.Tensor) -> tfd.Distribution:
        """Parameters `[..., H, W, C, ...]` -> p(x|z), batch `[...]`, event
        `[H, W, C]`.
        """
        raise NotImplementedError

    # Arithmetic is done on pixels along one axis: along three, XLA on a CPU
    # works out the place of each number, and takes three times as long.

    def _flat(self, parameter: tf.Tensor) -> tf.Tensor:
        """`[..., H, W, C]` -> `[..., H * W * C]`."""
        shape = tf.concat([tf.shape(parameter)[:-3], [self._num_pixels]], 0)
        return tf.reshape(parameter, shape)

    def _images_of(self, pixels: tfd.Distribution) -> tfd.Distribution:
        """Independent pixels, batch `[..., H * W * C]` -> images, event `[H, W,
        C]`.
        """
        return tfd.TransformedDistribution(
            tfd.Independent(pixels, 1),
            tfb.Reshape(self.image_shape, [self._num_pixels]),
        )

    @property
    def _num_pixels(self) -> int:
        return math.prod(self.image_shape)

    def adapt(self, mean_image: np.ndarray, count: int) -> None:
        """Starts p(x|z) at the mean image `[H, W, C]` of `count` images."""
        raise NotImplementedError

    def _start(self, parameter: int, value) -> None:
        """Sets the bias of each pixel's parameter of that number."""
        bias = np.reshape(self.bias, (*self.image_shape, -1)).copy()
        bias[..., parameter] = value
        self.bias.assign(np.reshape(bias, self.bias.shape))

    def get_config(self):
        return super().get_config() | {"image_shape": self.image_shape}


@keras.saving.register_keras_serializable("vae_tf")
class Bernoulli(Likelihood):
    """p(x|z) = prod_i Bernoulli(x_i; sigmoid(logits_i(z))) over pixels x_i in
    {0, 1}; its mean is P(x_i = 1).

    Returns:
      Logits `[B, H, W, C]`.
    """

    support = "binary"

    def distribution(self, parameters):
        logits = self._flat(parameters)
        return self._images_of(FusedBernoulli(logits=logits, dtype=tf.float32))

    def adapt(self, mean_image, count):
        self._start(0, _log_odds(mean_image, count))


@keras.saving.register_keras_serializable("vae_tf")
class ContinuousBernoulli(Likelihood):
    """p(x|z) = prod_i exp(x_i logits_i(z)) / Z_i over pixels x_i in [0, 1],
    with Z_i = (exp(logits_i) - 1) / logits_i: a density that integrates to 1
    where the Bernoulli formula on grey values does not.

    Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845; lambda there is
    sigmoid(logits) here. The mean is not lambda but dlog Z / dlogits.

    Args:
      image_shape: `(H, W, C)`.
      lambda_margin: lambda is kept in [margin, 1 - margin]; 0 for any lambda.
        In the authors' code it is 1e-4, and bounds the density of a pixel that
        is always black.

    Returns:
      Logits `[B, H, W, C]`.

    Raises:
      ValueError: the margin is not in [0, 1/2).
    """

    support = "interval"

    def __init__(self, image_shape, lambda_margin=0.0, **kwargs):
        super().__init__(image_shape, **kwargs)
        if not 0 <= lambda_margin < 0.5:
            raise ValueError(
                "lambda_margin: expected a number >= 0 and < 0.5, received "
                f"{lambda_margin!r}."
            )
        self.lambda_margin = lambda_margin

    @property
    def max_logits(self) -> float:
        """The largest absolute value of the logits of lambda."""
        margin = self.lambda_margin
        return math.log((1 - margin) / margin) if margin else math.inf

    def distribution(self, parameters):
        logits = self._flat(parameters)
        if self.lambda_margin:
            logits = tf.clip_by_value(logits, -self.max_logits, self.max_logits)
        return self._images_of(StableContinuousBernoulli(logits=logits))

    def adapt(self, mean_image, count):
        # The logits whose mean is that of the image, by bisection: the mean
        # rises with the logits.
        mean = _inside(mean_image, count)
        low, high = np.full_like(mean, -1e4), np.full_like(mean, 1e4)
        for _ in range(60):
            middle = (low + high) / 2
            below = continuous_bernoulli_mean(tf.constant(middle)) < mean
            low = np.where(below, middle, low)
            high = np.where(below, high, middle)
        # Inside the margin's bounds, beyond which there is no gradient.
        most = 0.9 * self.max_logits
        self._start(0, np.clip(middle, -most, most))

    def get_config(self):
        return super().get_config() | {"lambda_margin": self.lambda_margin}


@keras.saving.register_keras_serializable("vae_tf")
class Normal(Likelihood):
    """p(x|z) = prod_i N(x_i; loc_i(z), scale_i^2), with loc = sigmoid(.) in
    (0, 1) as the pixels are, and scale >= 1e-3. Draws of x may leave [0, 1].

    Args:
      image_shape: `(H, W, C)`.
      normal_scale: "fixed" (at `initial_scale`), "shared" (one, learned) or
        "per_pixel" (a function of z for each pixel).
      initial_scale: where the scale starts, or stays.

    Returns:
      Log-odds of loc and, before its softplus, the scale: `[B, H, W, C, 2]`.
    """

    support = "interval"
    parameter_shape: tuple[int, ...] = (2,)

    def __init__(
        self, image_shape, normal_scale="shared", initial_scale=0.1, **kwargs
    ):
        super().__init__(image_shape, **kwargs)
        if normal_scale not in NORMAL_SCALES:
            raise ValueError(
                f"normal_scale: expected one of {', '.join(NORMAL_SCALES)}, "
                f"received {normal_scale!r}."
            )
        if not initial_scale > MIN_NORMAL_SCALE:
            raise ValueError(
                f"initial_scale: expected a number > {MIN_NORMAL_SCALE}, "
                f"received {initial_scale!r}."
            )
        self.normal_scale = normal_scale
        self.initial_scale = initial_scale
        if normal_scale != "per_pixel":
            self.parameter_shape = ()  # What z gives is loc alone.

    def build(self, input_shape):
        super().build(input_shape)
        raw_scale = _inverse_softplus(self.initial_scale - MIN_NORMAL_SCALE)
        if self.normal_scale == "per_pixel":
            self._start(1, raw_scale)
        else:
            self.raw_scale = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(raw_scale),
                trainable=self.normal_scale == "shared",
                autocast=False,
                name="raw_scale",
            )

    def call(self, features):
        parameters = super().call(features)
        if self.normal_scale == "per_pixel":
            return parameters
        # Beside each loc, so that the parameters are the whole of p(x|z).
        raw_scale = tf.fill(tf.shape(parameters), 1.0) * self.raw_scale
        return tf.stack([parameters, raw_scale], -1)

    def distribution(self, parameters):
        loc, raw_scale = map(self._flat, tf.unstack(parameters, axis=-1))
        scale = MIN_NORMAL_SCALE + tf.nn.softplus(raw_scale)
        return self._images_of(tfd.Normal(tf.sigmoid(loc), scale))

    def adapt(self, mean_image, count):
        self._start(0, _log_odds(mean_image, count))

    def get_config(self):
        return super().get_config() | {
            "normal_scale": self.normal_scale,
            "initial_scale": self.initial_scale,
        }


@keras.saving.register_keras_serializable("vae_tf")
class DiscretizedLogistic(Likelihood):
    """p(x|z) = prod_i P(x_i), the mass that Logistic(loc_i(z), scale_i(z)) has
    in the bin around each of the 256 levels x_i = k/255 of 8-bit images; the
    first and the last bin reach to infinity.

    Kingma et al. 2016, arXiv:1606.04934.

    Returns:
      loc and, before its softplus, the scale: `[B, H, W, C, 2]`.
    """

    support = "levels"
    parameter_shape = (2,)

    def build(self, input_shape):
        super().build(input_shape)
        self._start(1, _inverse_softplus(0.1 - MIN_LOGISTIC_SCALE))

    def distribution(self, parameters):
        loc, raw_scale = map(self._flat, tf.unstack(parameters, axis=-1))
        scale = MIN_LOGISTIC_SCALE + tf.nn.softplus(raw_scale)
        return self._images_of(QuantizedLogistic(loc, scale))

    def adapt(self, mean_image, count):
        self._start(0, mean_image)


def _inside(mean_image: np.ndarray, count: int) -> np.ndarray:
    """A mean of `count` images, inside (0, 1) also where a pixel never varies:
    half a count is added to each side.
    """
    return (mean_image * count + 0.5) / (count + 1)


def _log_odds(mean_image: np.ndarray, count: int) -> np.ndarray:
    mean = _inside(mean_image, count)
    return np.log(mean / (1 - mean))


def _inverse_softplus(value: float) -> float:
    return float(np.log(np.expm1(value)))


NORMAL_SCALES = ("fixed", "shared", "per_pixel")
LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "normal": Normal,
    "discretized_logistic": DiscretizedLogistic,
}
