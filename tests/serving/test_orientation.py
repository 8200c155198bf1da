import image_files
import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.serving import orientation

STORED = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


TRACED = tf.function(
    orientation.upright,
    [
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((), tf.string),
        tf.TensorSpec((), tf.bool),
    ],
    autograph=False,
)


def upright(file):
    return TRACED(STORED, file, file.startswith(b"\x89PNG")).numpy()


class OrientationTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        way=tuple(range(1, 9)), save=(image_files.jpeg, image_files.png)
    )
    def test_a_file_is_turned_as_pil_turns_it(self, way, save):
        image = PIL.Image.fromarray(STORED)
        image.getexif()[image_files.ORIENTATION] = way
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
        found = upright(image_files.turned(image_files.noise(9, 9), way, save))
        self.assertAllEqual(found, expected)

    def test_a_way_that_there_is_not(self):
        for way in (0, 9, 65535):
            file = image_files.turned(image_files.noise(9, 9), way)
            self.assertAllEqual(upright(file), STORED)

    def test_either_order_of_bytes(self):
        file = image_files.turned(image_files.noise(9, 9), 3)
        place = file.index(b"Exif\0\0") + 6
        self.assertEqual(file[place : place + 2], b"MM")
        exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0"
        file = file[:place] + exif + file[place + len(exif) :]
        self.assertAllEqual(upright(file), STORED[::-1, ::-1])

    def test_broken_files_end(self):
        # Lengths and offsets that lead back, or far past the end.
        file = image_files.turned(image_files.noise(9, 9), 6)
        generator = np.random.default_rng(0)
        for _ in range(40):
            broken = bytearray(file)
            for place in generator.integers(2, 120, 3):
                broken[place] = generator.choice([0, 1, 255])
            self.assertEqual(upright(bytes(broken)).size, STORED.size)

    def test_chunks_before_the_pixels(self):
        few = image_files.noise(9, 9).quantize(5)
        clear = image_files.png(few, transparency=b"\1\2\3")
        for file, expected in ((image_files.png(few), b""), (clear, b"\1\2\3")):
            data = orientation.bytes_of(tf.constant(file))
            place = int(orientation.chunk(data, b"tRNS"))
            if expected:
                self.assertEqual(file[place : place + 3], expected)
            else:
                self.assertEqual(place, -1)
