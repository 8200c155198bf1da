"""What the steps of a pass count and report besides the bound and its terms:
pixels without probability, steps without a bound, the loss.
"""

import math

import keras
import tensorflow as tf

from vae_tf.refusals import in_support
from vae_tf.settings import UserError

EXPECTED = {
    "binary": "0 or 1",
    "levels": "k/255 with whole k from 0 to 255",
    "interval": "in [0, 1]",
}


class Refused(keras.metrics.Metric):
    """Counts, in the steps of a pass, the pixels that have no probability.

    Keras resets it with the other metrics, and shows nothing of it.

    Args:
      support: of the likelihood.
    """

    def __init__(self, support: str, name="refused", **kwargs):
        super().__init__(name=name, **kwargs)
        self.support = support
        # Pixels and images refused, images seen; lowest and highest refused.
        self.counts = self.add_weight((3,), "zeros", name="counts")
        self.range = self.add_variable(
            (2,), "zeros", None, "only_first_replica", "range"
        )

    def update_state(self, images):
        """Looks at images `[B, H, W, C]`."""
        flat = tf.reshape(images, (tf.shape(images)[0], -1))
        right = (flat >= 0) & (flat <= 1)  # false for NaN
        right &= in_support(flat, self.support)
        wrong = tf.reduce_sum(tf.cast(~right, tf.float32), axis=1)  # [B]
        counts = tf.stack(
            [
                tf.reduce_sum(wrong),
                tf.reduce_sum(tf.cast(wrong > 0, tf.float32)),
                tf.cast(tf.shape(flat)[0], tf.float32),
            ]
        )

        def note():
            refused = tf.math.is_finite(flat) & ~right
            low = tf.reduce_min(tf.where(refused, flat, math.inf))
            high = tf.reduce_max(tf.where(refused, flat, -math.inf))
            before = tf.unstack(self.range.value)
            known = self.counts.value[0] > 0
            both = [tf.minimum(low, before[0]), tf.maximum(high, before[1])]
            self.range.assign(tf.where(known, both, [low, high]))

        # Most batches are right, and pay for the count alone.
        tf.cond(counts[0] > 0, note, lambda: None)
        self.counts.assign_add(counts)

    def result(self):
        return {}

    def check(self) -> None:
        """Raises UserError, once, if a pixel was refused since the last
        reset.
        """
        pixels, images, seen = tf.convert_to_tensor(self.counts.value).numpy()
        if not pixels:
            return
        low, high = tf.convert_to_tensor(self.range.value).numpy()
        self.reset_state()
        values = f"with values from {low:g} to {high:g}"
        if low > high:
            values = "none of them a number"
        raise UserError(
            f"images: expected pixels {EXPECTED[self.support]}, received "
            f"{pixels:,.0f} others in {images:,.0f} of {seen:,.0f} images, "
            f"{values}."
        )


class NonFinite(keras.metrics.Metric):
    """Counts, in the steps of a pass, those whose bound is no finite number,
    and leaves their gradients out: what they would move stays a number.

    It costs a choice for each gradient, and no look at any: a gradient that is
    no number below a bound that is one passes.
    """

    def __init__(self, name="non_finite", **kwargs):
        super().__init__(name=name, **kwargs)
        # Steps, those left out, the last so many of them in a row, the most in
        # a row, the number of the first one, and whether its log p(x|z) and its
        # KL were numbers.
        self.counts = self.add_weight((7,), "zeros", name="counts")

    def update_state(self, loss, terms):
        """Looks at the loss of a step, and at the two terms of its bound."""
        steps, left, row, most, first, *finite = tf.unstack(self.counts.value)
        bad = ~tf.math.is_finite(loss)
        new = bad & (left == 0)
        now = (tf.reduce_all(tf.math.is_finite(term)) for term in terms)
        one = tf.cast(bad, tf.float32)
        row = (row + 1) * one
        self.counts.assign(
            [
                steps + 1,
                left + one,
                row,
                tf.maximum(most, row),
                tf.where(new, steps, first),
                *(
                    tf.where(new, tf.cast(each, tf.float32), before)
                    for each, before in zip(now, finite, strict=True)
                ),
            ]
        )

    def reset_state(self):
        # The next pass goes on with what is in a row.
        row = tf.convert_to_tensor(self.counts.value)[2]
        self.counts.assign(row * tf.one_hot(2, self.counts.shape[0]))

    @staticmethod
    def passed(loss, gradients):
        """The gradients of a step, 0 where its loss is no finite number."""
        fine = tf.math.is_finite(loss)
        return [
            None if each is None else tf.where(fine, each, tf.zeros_like(each))
            for each in gradients
        ]

    def result(self):
        return {}


class SettingBack:
    """Sets metrics back: in one call those of this package and Keras' `Mean`,
    which one by one cost milliseconds.
    """

    def __init__(self):
        self._plain: list[keras.metrics.Metric] = []

    def __call__(self, metrics: list[keras.metrics.Metric]) -> None:
        # Others may make variables later, or keep what is none.
        kinds = keras.metrics.Mean, Negative, Refused, NonFinite
        plain = [metric for metric in metrics if type(metric) in kinds]
        if plain != self._plain:
            self._plain = plain
            self._together = tf.function(self._one_by_one, autograph=False)
        self._together()
        for metric in metrics:
            if type(metric) not in kinds:
                metric.reset_state()

    def _one_by_one(self):
        for metric in self._plain:
            metric.reset_state()


class Negative(keras.metrics.Metric):
    """`loss`: minus another metric, which it costs nothing to know.

    Args:
      of: the metric, a bound that is maximised.
    """

    def __init__(self, of: keras.metrics.Metric):
        super().__init__(name="loss")
        # Past Keras, which would reset it twice; what its callbacks look at.
        object.__setattr__(self, "of", of)
        self._direction, of._direction = "down", "up"

    def update_state(self):
        """Nothing: the other one is updated."""

    def result(self):
        return -self.of.result()
