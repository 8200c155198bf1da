"""Distributions of a pixel that TensorFlow Probability does not have, or not as
fast, or not finite with its gradient."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd


class FusedBernoulli(tfd.Bernoulli):
    """`tfd.Bernoulli` with half the exponentials in `log_prob`."""

    def _log_prob(self, event):
        # x log p + (1 - x) log(1 - p) = x logits - softplus(logits)
        return event * self.logits - softplus(self.logits)


def softplus(x):
    """log(1 + exp(x)), to within 3e-7 or float32's rounding.

    From x = 15 on, it is x to that precision. By log and not log1p, which takes
    XLA several times as long.
    """
    return tf.math.log(1 + tf.exp(tf.minimum(x, 15.0))) + tf.nn.relu(x - 15.0)


class StableContinuousBernoulli(tfd.ContinuousBernoulli):
    """`tfd.ContinuousBernoulli` in a form that is finite, with its gradient,
    from logits of 0 to the largest.
    """

    def _log_prob(self, event):
        # log Z = logits / 2 + log(sinh(h) / h) with h = logits / 2, by its
        # series near 0. Further out, x is measured from the end that is the
        # more likely, so that nothing large is subtracted from its like.
        near = tf.abs(self.logits) < 1
        # Each branch gets a harmless value where the other one is taken, or its
        # gradient would be NaN there.
        small = tf.where(near, self.logits, 0.0)
        square = small**2 / 4
        series = (event - 0.5) * small - square * (
            1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800))
        )
        large = tf.abs(tf.where(near, 1.0, self.logits))
        from_end = tf.where(self.logits > 0, 1 - event, event)
        exact = (
            tf.math.log(large)
            - tf.math.log1p(-tf.exp(-large))
            - from_end * large
        )
        return tf.where(near, series, exact)

    def _mean(self, logits=None):
        logits = self.logits if logits is None else logits
        return continuous_bernoulli_mean(logits)


def continuous_bernoulli_mean(logits: tf.Tensor) -> tf.Tensor:
    """E[x] = 1/2 + (coth(h) - 1/h) / 2 with h = logits / 2, in (0, 1)."""
    h = logits / 2
    near = tf.abs(h) < 0.5
    small, large = tf.where(near, h, 0.0), tf.where(near, 1.0, h)
    square = small**2
    series = small * (
        1 / 3 - square * (1 / 45 - square * (2 / 945 - square / 4725))
    )
    exact = 1 / tf.tanh(large) - 1 / large
    return 0.5 + 0.5 * tf.where(near, series, exact)


class QuantizedLogistic(tfd.Distribution):
    """P(x = k/255) = sigmoid(upper) - sigmoid(lower), where upper and lower are
    the ends (k +- 1/2) / 255 of the bin, seen from loc in units of scale.

    Args:
      loc: `[...]`, in the units of x.
      scale: `[...]`, positive.
    """

    def __init__(self, loc, scale, name="QuantizedLogistic"):
        parameters = dict(locals())
        self.loc, self.scale = loc, scale
        super().__init__(
            dtype=loc.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        properties = tfd.Logistic.parameter_properties(dtype)
        return {name: properties[name] for name in ("loc", "scale")}

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _log_prob(self, event):
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)),
        # whose logarithm is exact however far out the bin lies. An edge bin has
        # one end, and one factor.
        upper = (event + 0.5 / 255 - self.loc) / self.scale
        lower = (event - 0.5 / 255 - self.loc) / self.scale
        below_upper = -tf.nn.softplus(-upper)
        above_lower = -tf.nn.softplus(lower)
        width = tf.math.log(-tf.math.expm1(-1 / (255 * self.scale)))
        first, last = event < 0.5 / 255, event > 254.5 / 255
        inner = below_upper + above_lower + width
        return tf.where(first, below_upper, tf.where(last, above_lower, inner))

    def _mean(self):
        # E[x] = sum_k P(x >= k/255) / 255 over k = 1 .. 255: one image at a
        # time, never 255 of them together.
        def add(k, total):
            end = (tf.cast(k, self.dtype) - 0.5) / 255
            return k + 1, total + tf.sigmoid((self.loc - end) / self.scale)

        _, total = tf.while_loop(
            lambda k, _: k <= 255, add, (1, tf.zeros_like(self.loc))
        )
        return total / 255

    def _sample_n(self, n, seed=None):
        draws = tfd.Logistic(self.loc, self.scale).sample(n, seed)
        return tf.clip_by_value(tf.round(draws * 255), 0.0, 255.0) / 255
