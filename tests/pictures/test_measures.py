import numpy as np
import tensorflow as tf

from vae_tf.pictures import figures, measures

KL = np.array([0.5, 3.0, 0.0, 1.0])
BOUNDS = {1: -105.0, 10: -101.0, 100: -100.0}
TAILS = np.array([0.2, 0.8, np.nan, -np.inf, 5.0])


def drawn(kl=KL, bounds=BOUNDS, tails=TAILS):
    return measures.evaluation(kl, bounds, -100.0, tails, 0.7)


class MeasuresTest(tf.test.TestCase):
    def test_each_panel_is_what_was_measured(self):
        dimensions, bound, tails = drawn().axes
        heights = [bar.get_height() for bar in dimensions.patches]
        self.assertAllClose(heights, [3.0, 1.0, 0.5, 0.0])
        curve, log_p = bound.get_lines()
        self.assertAllClose(curve.get_xydata(), list(BOUNDS.items()))
        self.assertAllClose(log_p.get_ydata(), [-100.0, -100.0])
        # Those beyond the axis stand at its ends; NaN is no image.
        counts = [bar.get_height() for bar in tails.patches]
        self.assertEqual(sum(counts), 4)
        self.assertEqual((counts[0], counts[-1]), (1, 1))
        (words,) = (text.get_text() for text in tails.texts)
        self.assertEqual(words, "50.0% above 0.7")

    def test_what_was_not_measured_has_no_panel(self):
        for changes, panels in (
            ({"kl": None}, 2),
            ({"bounds": {1: -105.0}}, 2),
            ({"tails": np.full(3, np.nan)}, 2),
            ({"kl": None, "bounds": {}, "tails": np.full(3, np.nan)}, 1),
        ):
            figure = drawn(**changes)
            self.assertLen(figure.axes, panels)
            figures.drawn(figure)  # without complaint
