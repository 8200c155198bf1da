import base64
import contextlib
import io
import pathlib
import re

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from browser import browser
from PIL import Image

from vae_tf.pictures import gallery, sheet
from vae_tf.runs import report_plane


def random_sheet(**changes):
    """Five by five tiles that have nothing in common, and three points."""
    tiles = np.random.default_rng(0).integers(0, 256, (5, 5, 6, 4, 3))
    values = dict(
        latent_dim=2,
        low=np.array([-4.0, -2.0]),
        high=np.array([4.0, 6.0]),
        tiles=tiles.astype(np.uint8),
        pixels=np.array([6, 4]),
        points=np.array([[-2.0, 2.0], [0.0, 0.0], [3.0, 5.0]]),
        labels=np.array([3, 7, 7]),
        prior_points=np.zeros((0, 2)),
    )
    return sheet.Sheet(**values | changes)


def bilinear(tiles, down, across):
    """The tile at a place that is counted in tiles `[h, w, channels]`."""
    top, left = (min(int(down), 3), min(int(across), 3))
    down, across = down - top, across - left
    (a, b), (c, d) = tiles[top : top + 2, left : left + 2].astype(float)
    upper, lower = a + across * (b - a), c + across * (d - c)
    return upper + down * (lower - upper)


class ReportPlaneTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = pathlib.Path(self.create_tempdir().full_path)

    def section(self, **changes):
        gallery.record_plane(self.run_dir, random_sheet(**changes))
        return report_plane.section(self.run_dir)

    def test_points_are_drawn_where_they_are(self):
        text = self.section()
        found = re.findall(r"stroke='(.*?)' data-class='(\d)' d='(.*?)'", text)
        self.assertEqual(
            found,
            [
                ("#332288", "3", "M250 500h0"),
                ("#88ccee", "7", "M500 750h0M875 125h0"),
            ],
        )
        circles = re.findall(r"'prior' cx='500' cy='750' r='(\d+)'", text)
        self.assertEqual(circles, ["125", "250", "375"])
        ticks = re.findall(r"<text x='(\d+)' y='1040' .*?>(.*?)<", text)
        self.assertContainsSubset(
            [("0", "-4"), ("500", "0"), ("1000", "4")], ticks
        )
        ticks = re.findall(r"<text x='-18' y='(\d+)' .*?>(.*?)<", text)
        self.assertContainsSubset([("1009", "-2"), ("9", "6")], ticks)

    def test_the_tiles_are_in_it_whole(self):
        text = self.section()
        (content,) = re.findall(r"data:image/png;base64,([^\"]+)", text)
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        self.assertEqual(picture.size, (20, 30))
        self.assertAllEqual(
            np.asarray(picture)[6:12, 16:20], random_sheet().tiles[1, 4]
        )

    def test_it_is_the_same_each_time_and_names_no_place(self):
        text = self.section()
        self.assertEqual(self.section(), text)
        self.assertNotIn(str(self.run_dir), text)
        self.assertNotIn("$", text)
        self.assertNotIn("pixels, ", text)  # All of them show.

    @parameterized.parameters(
        ({}, "circles at 1, 2 and 3 standard deviations", "5 x 5 values"),
        (
            {"prior_points": np.ones((1, 2))},
            "in grey, draws from",
            "M625 625h0",
        ),
        ({"pixels": np.array([12, 8])}, "Of 12 x 8 pixels, 6 x 4", "#332288"),
        ({"latent_dim": 9}, "Of 9 dimensions, the plane through", "axis 1"),
        ({"labels": np.zeros(0)}, "3 images that were held out; ", "#332288"),
        ({"labels": np.array([3, 4, 40])}, "coloured by class", "#44aa99"),
    )
    def test_it_says_what_is_shown(self, changes, words, drawn):
        text = self.section(**changes)
        self.assertIn(words, text)
        self.assertIn(drawn, text)

    def test_of_many_classes_colours_tell_the_order(self):
        text = self.section(
            points=np.zeros((30, 2)), labels=np.arange(30), prior_points=[]
        )
        self.assertIn("class 0 <i class='ramp'", text)
        self.assertIn("stroke='#00224e' data-class='0'", text)

    def test_a_line_where_there_is_one_dimension(self):
        text = self.section(
            latent_dim=1,
            tiles=random_sheet().tiles[:1],
            prior_points=np.ones((1, 2)),
        )
        self.assertIn("decoded at 5 values", text)
        self.assertIn("image, in order", text)
        self.assertEmpty(re.findall(r"class='up'>", text))

    def test_without_a_sheet_or_with_a_damaged_one_there_is_no_plane(self):
        self.assertEqual(report_plane.section(self.run_dir), "")
        self.section()
        path = self.run_dir / "figures/plane.npz"
        path.write_bytes(path.read_bytes()[:-30])
        with self.assertWarnsRegex(UserWarning, "plane.npz: no picture"):
            self.assertEqual(report_plane.section(self.run_dir), "")

    @parameterized.parameters((28, 28, 1, 28), (64, 64, 3, 7))
    def test_it_takes_less_than_a_megabyte(self, *shape_and_side):
        # Noise compresses least: as many tiles of it as a sheet may have.
        *shape, side = shape_and_side
        generator = np.random.default_rng(0)
        tiles = generator.integers(0, 256, (side, side, *shape))
        text = self.section(
            tiles=tiles.astype(np.uint8),
            points=generator.uniform(-2, 4, (sheet.MAX_POINTS, 2)),
            labels=generator.integers(0, 10, sheet.MAX_POINTS),
            prior_points=generator.uniform(-2, 4, (sheet.MAX_POINTS, 2)),
        )
        self.assertBetween(len(text), 700_000, 999_999)


class BrowserTest(parameterized.TestCase, tf.test.TestCase):
    """The page in Chromium, its plane drawn in 1000 pixels."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        chromium = stack.enter_context(browser())
        size = {"width": 1500, "height": 1400}
        cls.page = chromium.new_page(viewport=size, has_touch=True)

    def shown(self, **changes):
        """Opens a page of a sheet, which it returns."""
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        found = random_sheet(**changes)
        gallery.record_plane(run_dir, found)
        self.page.set_content(
            "<!doctype html><style>body { margin: 0; }</style>"
            + report_plane.section(run_dir)
            + "<style>.plane { margin: 0; grid-template-columns: 1140px 99px; }"
            "</style>"
        )
        self.page.wait_for_selector("canvas", state="visible")
        return found

    def client(self, x, y):
        """Pixels of the window at a place of the drawing."""
        box = self.page.locator("svg").bounding_box()
        return {"x": box["x"] + 120 + x, "y": box["y"] + 20 + y}

    def move(self, x, y):
        self.page.mouse.move(**self.client(x, y))

    def image(self):
        content = self.page.evaluate(
            "document.querySelector('canvas').toDataURL()"
        )
        picture = base64.b64decode(content.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))

    def says(self):
        return self.page.locator("output").inner_text()

    def test_on_a_node_its_tile_is_shown(self):
        tiles = self.shown().tiles
        self.assertAllEqual(self.image(), tiles[2, 2])  # before any move
        for row, column in ((0, 0), (1, 3), (4, 4), (3, 0)):
            self.move(250 * column, 250 * row)
            self.assertAllEqual(self.image(), tiles[row, column])
        self.assertEqual(self.says(), "z = (-4.00, 0.00)")

    @parameterized.parameters((375, 375), (10, 940), (500, 777), (901, 0))
    def test_between_nodes_it_is_interpolated(self, x, y):
        tiles = self.shown().tiles
        self.move(x, y)
        expected = bilinear(tiles, y / 250, x / 250)
        # Of 255: each of three layers is rounded.
        self.assertAllClose(self.image(), expected, rtol=0, atol=3)

    def test_colours_of_grey_images_are_grey(self):
        tiles = self.shown(tiles=random_sheet().tiles[..., :1]).tiles
        self.move(250, 250)
        self.assertAllEqual(self.image(), np.repeat(tiles[1, 1], 3, -1))

    def test_a_point_tells_its_class(self):
        self.shown()
        self.move(504, 747)
        self.assertEndsWith(self.says(), "), on a sample of class 7")
        self.move(520, 747)
        self.assertEqual(self.says(), "z = (0.16, 0.02)")

    def test_arrow_keys_move_it(self):
        tiles = self.shown().tiles
        press = self.page.keyboard.press
        press("Tab")  # onto the plane
        for key in 10 * ["ArrowRight"] + 10 * ["ArrowUp"]:
            press(key)
        self.assertEqual(self.says(), "z = (2.00, 4.00)")
        self.assertAllEqual(self.image(), tiles[1, 3])
        press("Shift+ArrowLeft")
        self.assertEqual(self.says(), "z = (1.96, 4.00)")

    def test_a_finger_moves_it_and_not_the_page(self):
        tiles = self.shown().tiles
        session = self.page.context.new_cdp_session(self.page)
        for kind, places in (
            ("touchStart", [self.client(500, 900)]),
            ("touchMove", [self.client(500, 600)]),
            ("touchMove", [self.client(250, 250)]),
            ("touchEnd", []),
        ):
            session.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": places},
            )
        self.assertAllEqual(self.image(), tiles[1, 1])
        self.assertEqual(self.page.evaluate("scrollY"), 0)

    def test_one_dimension_is_a_line(self):
        tiles = self.shown(
            latent_dim=1,
            tiles=random_sheet().tiles[:1],
            prior_points=np.ones((1, 2)),
        ).tiles
        for y in (0, 600):
            self.move(750, y)
            self.assertAllEqual(self.image(), tiles[0, 3])
            self.assertEqual(self.says(), "z = 2.00")
