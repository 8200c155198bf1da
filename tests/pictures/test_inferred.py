import numpy as np
import tensorflow as tf
from small import random_bits, small_vae

import vae_tf
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
        found = vae_tf.explain(small_vae(), random_bits(1)[0], 100)
        figure = vae_tf.draw_explanation(found)
        *_, quantities = (axes for axes in figure.axes if axes.patches)
        self.assertAllClose(
            [bar.get_width() for bar in quantities.patches],
            [abs(one.value) for one in found.quantities],
            1e-6,
        )
        (other,) = quantities.child_axes
        for axes, language in (
            (quantities, "network"),
            (other, "probability"),
        ):
            self.assertEqual(
                [label.get_text() for label in axes.get_yticklabels()],
                [getattr(one, language) for one in found.quantities],
            )
        # What is not known of a model leaves its place empty.
        unknown = found._replace(kl_per_dimension=None, pixel_cost=None)
        figures.drawn(vae_tf.draw_explanation(unknown))
