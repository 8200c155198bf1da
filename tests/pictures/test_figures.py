import io
import itertools
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from vae_tf.pictures import figures, latent_points

GENERATOR = np.random.default_rng(0)
HISTORY = [
    {
        "epoch": epoch,
        **dict.fromkeys(("elbo", "reconstruction", "kl"), -100.0 / epoch),
        **dict.fromkeys(
            ("val_elbo", "val_reconstruction", "val_kl"), -110.0 / epoch
        ),
    }
    for epoch in range(1, 6)
]


def dots(figure):
    """The collection of points of a posterior picture."""
    return figure.axes[0].collections[-1]


class PosteriorTest(parameterized.TestCase, tf.test.TestCase):
    def test_points_lie_where_they_are_in_the_colour_of_their_class(self):
        points = GENERATOR.normal(size=(50, 2))
        labels = GENERATOR.integers(0, 10, 50)
        figure = figures.posterior(points, labels, "title")
        self.assertAllClose(dots(figure).get_offsets(), points)
        legend = figure.axes[0].get_legend()
        colours = {
            text.get_text(): handle.get_color()
            for text, handle in zip(
                legend.get_texts(), legend.legend_handles, strict=True
            )
        }
        self.assertLen(set(colours.values()), 10)
        for label, colour in zip(
            labels, dots(figure).get_facecolors(), strict=True
        ):
            self.assertEqual(to_hex(colour), colours[str(label)])

    def test_frames_share_their_axes_and_size(self):
        sizes, limits = set(), set()
        for spread in (0.1, 1.0, 9.0):
            points = spread * GENERATOR.normal(size=(50, 2))
            figure = figures.posterior(points, np.arange(50) % 10, "title")
            sizes.add(figures.drawn(figure).size)
            limits.add(figure.axes[0].get_xlim() + figure.axes[0].get_ylim())
            self.assertEqual(figure.axes[0].get_aspect(), 1.0)
        self.assertLen(sizes, 1)
        self.assertEqual(limits, {(-4.0, 4.0, -4.0, 4.0)})

    def test_says_how_many_points_lie_outside(self):
        points = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, -4.5]])
        texts = [t.get_text() for t in _axes(points).texts]
        self.assertIn("2 of 3 lie outside", texts)
        texts = [t.get_text() for t in _axes(points[:1]).texts]
        self.assertFalse(any("outside" in text for text in texts))

    def test_the_prior_lies_behind(self):
        radii = {patch.radius for patch in _axes(np.zeros((1, 2))).patches}
        self.assertEqual(radii, {1, 2, 3})
        prior = GENERATOR.normal(size=(9, 2))
        figure = figures.posterior(np.zeros((1, 2)), None, "", "ab", prior)
        self.assertEmpty(figure.axes[0].patches)
        offsets = figure.axes[0].collections[0].get_offsets()
        self.assertAllClose(offsets, prior)

    @parameterized.parameters(1, 10, 11, 50)
    def test_any_number_of_classes(self, count):
        labels = np.arange(100) % count
        points = GENERATOR.normal(size=(100, 2))
        figure = figures.posterior(points, labels, "title")
        figures.drawn(figure)
        colours = np.unique(dots(figure).get_facecolors(), axis=0)
        self.assertLen(colours, count)


def _axes(points):
    return figures.posterior(points, None, "title").axes[0]


class ImagesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (8, 8, 1), (28, 28, 1), (13, 7, 1), (64, 64, 3), (5, 9, 3)
    )
    def test_cells_of_the_prior_predictive_are_the_images(self, *shape):
        images = GENERATOR.integers(0, 256, (4, 4, *shape), dtype=np.uint8)
        figure = figures.prior_predictive(
            images, "title", latent_points.axis(4)
        )
        axes = figure.axes[0]
        picture = np.asarray(figures.drawn(figure))
        height = len(picture)
        for row, column, y, x in itertools.product(
            range(4), range(4), (0, shape[0] - 1), (0, shape[1] - 1)
        ):
            # The middle of a pixel; cells count from the lower left.
            middle = (
                column - 0.5 + (x + 0.5) / shape[1],
                3 - row + 0.5 - (y + 0.5) / shape[0],
            )
            across, up = axes.transData.transform(middle)
            found = picture[height - 1 - int(up), int(across)]
            expected = np.broadcast_to(images[row, column, y, x], 3)
            self.assertAllEqual(found, expected)

    @parameterized.parameters("equal", "probability")
    def test_ticks_stand_at_their_z(self, spacing):
        values = latent_points.axis(20, spacing)
        images = np.zeros((20, 20, 8, 8, 1))
        axes = figures.prior_predictive(images, "title", values).axes[0]
        for line in (axes.xaxis, axes.yaxis):
            places = line.get_ticklocs()
            names = [float(t.get_text()) for t in line.get_ticklabels()]
            found = np.interp(places, np.arange(20), values)
            self.assertAllClose(found, names, atol=0.006)
            self.assertAllClose([names[0], names[-1]], values[[0, -1]], 1e-2)
        if spacing == "equal":
            self.assertEqual((names[0], names[-1]), (-3.0, 3.0))

    def test_a_sheet_has_no_axes(self):
        figure = figures.prior_predictive(np.zeros((5, 5, 8, 8, 3)), "title")
        self.assertFalse(figure.axes[0].axison)

    def test_a_mosaic_is_made_of_its_images(self):
        images = GENERATOR.random((2, 3, 4, 5, 3))
        sheet = figures.mosaic(images, gap=1)
        self.assertEqual(sheet.shape, (10, 18, 3))
        self.assertAllEqual(sheet[5:9, 12:17], images[1, 2])
        self.assertAllEqual(sheet[4], np.ones((18, 3)))

    @parameterized.parameters((8, 8, 1), (13, 7, 3))
    def test_reconstructions_and_their_difference(self, *shape):
        images, again = GENERATOR.random((2, 3, *shape))
        figure = figures.reconstructions(images, again)
        sheet = figure.axes[0].images[0].get_array() / 255
        height, width = shape[0] + 1, shape[1] + 1  # with a gap of one
        rows = [
            sheet[r * height :, width:][: shape[0], : shape[1]]
            for r in range(3)
        ]
        self.assertAllClose(rows[0], images[1] * np.ones(3), atol=0.01)
        self.assertAllClose(rows[1], again[1] * np.ones(3), atol=0.01)
        difference = (again - images)[1].mean(-1)
        # Purple where the reconstruction is lighter, orange where darker.
        red_less_blue = rows[2][..., 0] - rows[2][..., 2]
        plain = np.abs(difference) > 0.02
        self.assertAllEqual((red_less_blue < 0)[plain], (difference > 0)[plain])
        figures.drawn(figure)

    def test_rows_of_images(self):
        images = GENERATOR.random((2, 6, 8, 8, 1))
        figure = figures.rows_of_images(images, ["a", "b"], "title")
        names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
        self.assertEqual(names, ["a", "b"])
        # A name stands at the middle of its row.
        self.assertAllClose(figure.axes[0].get_yticks(), [3.5, 12.5])
        figures.drawn(figure)


class CurvesTest(parameterized.TestCase, tf.test.TestCase):
    def test_curves_are_the_history(self):
        figure = figures.training_curves(
            HISTORY, np.array([0.1, 2.0]), "KL (nats)", [(0, 0.1), (5, 0.8)]
        )
        curves = {
            axes.get_title(): [line.get_xydata() for line in axes.lines]
            for axes in figure.axes
        }
        epochs = np.arange(1, 6)
        for title in ("ELBO", "reconstruction", "KL"):
            training, validation = curves[title]
            self.assertAllClose(training.T, [epochs, -100 / epochs])
            self.assertAllClose(validation.T, [epochs, -110 / epochs])
        (accuracy,) = curves["class from z, 5 nearest neighbours"]
        self.assertAllClose(accuracy, [(0, 0.1), (5, 0.8)])
        bars = next(a for a in figure.axes if a.get_title() == "KL (nats)")
        heights = [bar.get_height() for bar in bars.patches]
        self.assertEqual(heights, [2.0, 0.1])

    def test_the_objective_s_own_bound_has_a_panel(self):
        history = [row | {"iwae": -1.0, "val_iwae": -2.0} for row in HISTORY]
        figure = figures.training_curves(history, np.ones(3), "KL")
        titles = [axes.get_title() for axes in figure.axes]
        self.assertIn("importance-weighted bound", titles)

    @parameterized.parameters(0, 1)
    def test_a_run_that_has_only_begun_draws(self, epochs):
        figure = figures.training_curves(HISTORY[:epochs], np.ones(3), "KL")
        figures.drawn(figure)


class FilesTest(tf.test.TestCase):
    def test_the_same_figure_gives_the_same_bytes(self):
        points = GENERATOR.normal(size=(50, 2))
        one, same, other = (
            figures.png(figures.drawn(figures.posterior(p, None, "title")))
            for p in (points, points, points + 0.5)
        )
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_an_animation_decodes_and_loops(self):
        frames = [
            figures.drawn(
                figures.posterior(np.full((1, 2), k / 4), None, f"epoch {k}")
            )
            for k in range(12)
        ]
        animation = Image.open(io.BytesIO(figures.gif(frames)))
        self.assertEqual(animation.n_frames, 12)
        self.assertEqual(animation.info["loop"], 0)  # for ever
        contents = set()
        for number in range(12):
            animation.seek(number)
            self.assertEqual(animation.size, frames[0].size)
            contents.add(animation.convert("RGB").tobytes())
        self.assertLen(contents, 12)
        self.assertGreater(animation.info["duration"], 2000)

    def test_needs_neither_a_display_nor_tensorflow(self):
        code = (
            "import sys, numpy as np; from vae_tf.pictures import figures; "
            "figures.drawn(figures.graphical_model()); sys.exit('tensorflow' "
            "in sys.modules or 'matplotlib.pyplot' in sys.modules)"
        )
        environment = {
            k: v for k, v in os.environ.items() if k not in ("DISPLAY",)
        }
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=environment
        )

    def test_the_graphical_model_shades_what_is_observed(self):
        axes = figures.graphical_model().axes[0]
        names = [text for text in axes.texts if text.get_text()]
        shades = {
            text.get_text(): circle.get_facecolor()
            for circle in axes.patches
            if hasattr(circle, "radius")
            for text in names
            if np.allclose(text.get_position(), circle.center)
        }
        self.assertEqual(shades["$z_n$"][:3], (1.0, 1.0, 1.0))
        self.assertLess(max(shades["$x_n$"][:3]), 0.9)
        # Both lie in the plate, the parameters outside.
        plate = next(p for p in axes.patches if isinstance(p, Rectangle))
        for text in names:
            inside = plate.get_bbox().contains(*text.get_position())
            self.assertEqual(
                inside, text.get_text() in shades or "N" in text.get_text()
            )
