import io

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.data.resizing import is_grey, resized


def stored(image, **options):
    """The image, written to a file and opened again."""
    file = io.BytesIO()
    image.save(file, "png", **options)
    return PIL.Image.open(file)


class ResizingTest(tf.test.TestCase, parameterized.TestCase):
    def test_the_size_it_has_changes_no_pixel(self):
        generator = np.random.default_rng(0)
        for channels in (1, 3):
            pixels = generator.integers(0, 256, (6, 6, channels))
            pixels = pixels.astype(np.uint8)
            for image_size in (None, 6):
                out = resized(pixels, image_size, channels)
                self.assertEqual(out.dtype, np.uint8)
                self.assertAllEqual(out, pixels)
        wide = pixels[:3]
        self.assertAllEqual(resized(wide, None, 3), wide)

    def test_the_centre_is_kept(self):
        pixels = np.zeros((4, 10, 1), np.uint8)
        pixels[:, 3:7] = np.arange(16).reshape(4, 4, 1)
        self.assertAllEqual(resized(pixels, 4, 1), pixels[:, 3:7])
        upright = pixels.transpose(1, 0, 2)
        self.assertAllEqual(resized(upright, 4, 1), upright[3:7])

    def test_half_the_size_is_the_mean_of_a_slope(self):
        # Levels 8x: pixel x of the half lies between 2x and 2x + 1.
        pixels = np.tile(8 * np.arange(32, dtype=np.uint8), (32, 1))
        half = resized(pixels[..., np.newaxis], 16, 1)
        self.assertEqual(half.shape, (16, 16, 1))
        inner = np.arange(4, 12)  # The filter is cut off at the border.
        self.assertAllEqual(half[:, inner, 0], np.tile(16 * inner + 4, (16, 1)))

    def test_larger(self):
        pixels = np.full((2, 3, 3), (10, 20, 30), np.uint8)
        self.assertAllEqual(
            resized(pixels, 5, 3), np.full((5, 5, 3), (10, 20, 30))
        )

    def test_fine_stripes_do_not_alias(self):
        pixels = np.zeros((64, 64, 1), np.uint8)
        pixels[:, ::2] = 255
        inner = resized(pixels, 16, 1)[4:-4, 4:-4].astype(int)
        self.assertAllInRange(inner, 125, 130)

    def test_sixteen_bits(self):
        levels = np.array([[0, 128, 129, 257], [256, 32896, 65406, 65535]])
        expected = [[0, 0, 1, 1], [1, 128, 254, 255]]
        grey = PIL.Image.fromarray(levels.astype(np.uint16))
        for image in (grey, stored(grey), grey.convert("I")):
            self.assertTrue(is_grey(image))
            self.assertAllEqual(resized(image, None, 1)[..., 0], expected)
        array = levels.astype(np.uint16)[..., np.newaxis]
        self.assertAllEqual(resized(array, None, 3)[..., 2], expected)

    def test_the_transparent_level_of_sixteen_bits_is_white(self):
        levels = np.array([[0, 257, 514, 65535]], np.uint16)
        image = PIL.Image.fromarray(levels)
        image.info["transparency"] = 257  # as PIL reads it from a PNG
        self.assertAllEqual(resized(image, None, 1)[..., 0], [[0, 255, 2, 255]])

    @parameterized.parameters((1, 0), (2, "mirror"), (3, 2), (6, -1), (8, 1))
    def test_upright_as_exif_says(self, orientation, turns):
        pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        image = stored(PIL.Image.fromarray(pixels), exif=exif)
        expected = (
            pixels[:, ::-1] if turns == "mirror" else np.rot90(pixels, turns)
        )
        self.assertAllEqual(resized(image, None, 1)[..., 0], expected)

    def test_transparent_over_white(self):
        colour = np.array(
            [[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], np.uint8
        )
        expected = [[[200, 100, 0], [255, 255, 255], [204, 204, 204]]]
        self.assertAllEqual(resized(colour, None, 3), expected)
        image = PIL.Image.fromarray(colour)
        self.assertAllEqual(resized(image, None, 3), expected)
        grey = np.array([[[7, 255], [7, 0], [0, 51]]], np.uint8)
        self.assertAllEqual(
            resized(PIL.Image.fromarray(grey), None, 1), [[[7], [255], [204]]]
        )

    def test_a_transparent_colour_of_a_palette_or_grey(self):
        image = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8))
        grey = stored(image, transparency=1)
        self.assertAllEqual(resized(grey, None, 1), [[[0], [255], [2]]])
        palette = PIL.Image.new("P", (3, 1))
        palette.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1])
        palette.putdata([0, 1, 2])
        palette = stored(palette, transparency=1)
        self.assertEqual(palette.mode, "P")
        self.assertAllEqual(
            resized(palette, None, 3), [[[9, 8, 7], [255] * 3, [3, 2, 1]]]
        )

    def test_grey_of_colours_and_colours_of_grey(self):
        colours = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]]
        # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
        self.assertAllEqual(
            resized(np.array(colours, np.uint8), None, 1),
            [[[76], [150], [29], [9]]],
        )
        self.assertAllEqual(
            resized(np.array([[[5], [6]]], np.uint8), None, 3),
            [[[5, 5, 5], [6, 6, 6]]],
        )

    def test_black_and_white(self):
        image = stored(PIL.Image.fromarray(np.array([[True, False]])))
        self.assertEqual(image.mode, "1")
        self.assertAllEqual(resized(image, None, 1), [[[255], [0]]])

    @parameterized.parameters(
        ("1", True),
        ("L", True),
        ("LA", True),
        ("I;16", True),
        ("F", True),
        ("RGB", False),
        ("RGBA", False),
        ("CMYK", False),
    )
    def test_what_is_grey(self, mode, expected):
        self.assertEqual(is_grey(PIL.Image.new(mode, (2, 2))), expected)

    def test_a_palette_of_greys_is_grey(self):
        levels = np.array([[0, 7, 200]], np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(levels).save(file, "gif")
        image = PIL.Image.open(file)
        self.assertEqual(image.mode, "P")
        self.assertTrue(is_grey(image))
        self.assertAllEqual(resized(image, None, 1)[..., 0], levels)
        image.putpalette([0, 0, 0, 7, 7, 7, 200, 200, 201])
        self.assertFalse(is_grey(image))

    def test_floats(self):
        for values, expected in (
            ([[0, 0.5, 1]], [0, 128, 255]),
            ([[0, 1.4, 254.6]], [0, 1, 255]),
        ):
            image = PIL.Image.fromarray(np.float32(values))
            self.assertEqual(image.mode, "F")
            self.assertAllEqual(resized(image, None, 1)[0, :, 0], expected)
            self.assertAllEqual(resized(image, None, 3)[0, :, 2], expected)

    @parameterized.parameters(
        (np.float32, -0.1, "floats from -0.1"),
        (np.float32, 255.5, "to 255.5, outside"),
        (np.float32, np.nan, "floats from nan"),
        (np.int32, 65536, "grey levels from 0 to 65536, outside 0 to 65535"),
        (np.int32, -1, "grey levels from -1 to 0"),
    )
    def test_levels_outside_every_range(self, dtype, value, message):
        image = PIL.Image.fromarray(np.array([[0, value]], dtype))
        with self.assertRaisesRegex(ValueError, message):
            resized(image, None, 1)
