import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf.inference.explanation import Explanation, Quantity
from vae_tf.inference.plane import Plane
from vae_tf.pictures import figures, inferred

ELBO = np.array([-12.0, -10.0])
REFINED = {"mean_field": ELBO + 1, "full_covariance": ELBO + 1.5}


def plane():
    z = np.linspace(-2, 2, 9)
    density = np.exp(-(z**2) - z[:, np.newaxis] ** 2)
    return Plane(z, z, density, density, density)


class GapsTest(tf.test.TestCase):
    def test_bars_reach_from_the_elbo_to_log_p(self):
        bars, scatter = inferred.gaps(ELBO, REFINED, -9.0).axes
        ends = [(bar.get_x(), bar.get_width()) for bar in bars.patches]
        self.assertAllClose(ends, [(-11, 1), (-10, 1), (-11, 1.5), (-9.5, 0.5)])
        self.assertEqual(
            [label.get_text() for label in bars.get_yticklabels()],
            list(REFINED),
        )
        (dots,) = scatter.collections
        self.assertAllClose(
            dots.get_offsets(), np.stack([ELBO, REFINED["mean_field"]], -1)
        )

    def test_a_panel_for_each_image_of_a_plane(self):
        figure = inferred.gaps(ELBO, REFINED, -9.0, [plane(), plane()])
        self.assertLen(figure.axes, 4)
        self.assertEqual(figure.axes[3].get_title(), "image 2, to 1 and 2 s.d.")
        figures.drawn(figure)  # without complaint


class ExplanationTest(tf.test.TestCase):
    def test_every_quantity_in_both_languages(self):
        quantities = (
            Quantity("- loss", "ELBO", -12.5, 0.25),
            Quantity("regulariser", "KL(q(z|x) || p(z))", 3.0, 0.0),
        )
        image = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3, 1)
        found = Explanation(
            image, image, quantities, np.array([2.5, 0.5]), image, 100, None
        )
        figure = vae_tf.draw_explanation(found)
        *_, bars = (axes for axes in figure.axes if axes.patches)
        self.assertAllClose([b.get_width() for b in bars.patches], [12.5, 3.0])
        (other,) = bars.child_axes
        for axes, language in (
            (bars, "network"),
            (other, "probability"),
        ):
            self.assertEqual(
                [label.get_text() for label in axes.get_yticklabels()],
                [getattr(one, language) for one in found.quantities],
            )
        # What is not known of a model leaves its place empty.
        unknown = found._replace(kl_per_dimension=None, pixel_cost=None)
        figures.drawn(vae_tf.draw_explanation(unknown))
