import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import random_bits, small_vae

import vae_tf
from vae_tf.pictures import sheet, snapshots

HELD = snapshots.HeldOut(random_bits(60), np.arange(60) % 3)


def taken(vae, held=HELD):
    return sheet.take(vae, held, snapshots.take(vae, held, 0))


def noisy_vae(*image_shape):
    """Decodes what hardly compresses."""
    vae = vae_tf.VAE(
        vae_tf.Encoder(2, hidden_units=(4,)),
        vae_tf.Decoder(image_shape, "normal", hidden_units=(4,)),
    )
    images = np.random.default_rng(0).random((8, *image_shape), np.float32)
    for variable in vae.decoder.trainable_variables:
        noise = np.random.default_rng(1).standard_normal(variable.shape)
        variable.assign(0.3 * noise)
    return vae, snapshots.HeldOut(images, None)


class SheetTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 2, 5)
    def test_tiles_are_what_the_decoder_gives_at_the_nodes(self, latent_dim):
        vae = small_vae(latent_dim=latent_dim)
        snapshot = snapshots.take(vae, HELD, 0)
        found = sheet.take(vae, HELD, snapshot)
        rows, columns = found.tiles.shape[:2]
        self.assertEqual(rows, 1 if latent_dim == 1 else 33)
        self.assertEqual(columns, 129 if latent_dim == 1 else 33)
        center = np.mean(vae.encoder(HELD.images).mean(), 0)
        for row, column in ((0, 0), (rows - 1, 3), (rows // 2, columns - 1)):
            share = np.array([column / (columns - 1), 1.0])
            share[1] -= row / max(rows - 1, 1)
            point = found.low + share * (found.high - found.low)
            z = {1: point[:1], 2: point}.get(latent_dim)
            if z is None:  # On the plane there, across it at the mean.
                plane = snapshot.plane
                z = plane @ point + center - plane @ (plane.T @ center)
            mean = vae.decoder(z[np.newaxis].astype(np.float32)).mean()[0]
            tile = found.tiles[row, column] / 255
            self.assertAllClose(tile, mean, rtol=0, atol=0.51 / 255)

    def test_it_holds_every_point_and_the_prior(self):
        snapshot = snapshots.take(small_vae(), HELD, 0)
        far = np.zeros_like(snapshot.points)
        corners = sheet.rectangle(snapshot._replace(points=far))
        self.assertAllClose(corners, [[-3.5, -3.5], [3.5, 3.5]])
        far[:3] = (9.2, 1.0), (np.nan, 0.0), (0.0, -5.1)
        low, high = sheet.rectangle(snapshot._replace(points=far))
        # From -3.5 to 9.5, and a square about the middle of -5.5 and 3.5.
        self.assertAllClose([low, high], [[-3.5, -7.5], [9.5, 5.5]])

    def test_a_prior_of_its_own_says_what_is_shown(self):
        snapshot = snapshots.take(small_vae(), HELD, 0)._replace(
            points=np.array([[10.1, 20.1], [12.0, 20.9]]),
            prior_points=np.array([[11.0, 20.0]]),
        )
        low, high = sheet.rectangle(snapshot)
        self.assertAllClose([low, high], [[10.0, 19.5], [12.0, 21.5]])

    def test_points_that_are_none_and_too_many_are_left_out(self):
        vae = small_vae()
        snapshot = snapshots.take(vae, HELD, 0)
        many = np.tile(snapshot.points, (50, 1))
        many[0] = np.nan
        found = sheet.take(
            vae,
            HELD,
            snapshot._replace(points=many, labels=np.arange(len(many))),
        )
        self.assertLen(found.points, 2000)
        self.assertEqual((found.labels[0], found.labels[-1]), (1, 2999))
        self.assertBetween(np.diff(found.labels).min(), 1, 2)
        self.assertBetween(np.diff(found.labels).max(), 1, 2)
        self.assertAllEqual(found.points, many[found.labels])

    @parameterized.parameters((28, 28, 1), (64, 64, 3))
    def test_what_hardly_compresses_has_fewer_tiles(self, *image_shape):
        found = taken(*noisy_vae(*image_shape))
        self.assertLess(len(found.png()), 680_000)
        self.assertGreater(len(found.png()), 400_000)
        rows, columns = found.tiles.shape[:2]
        self.assertEqual(rows, columns)
        self.assertBetween(rows, 7, 32)

    def test_what_compresses_less_than_a_few_tiles_promised(self):
        generator = np.random.default_rng(0)

        def means(vae, z):
            most = 1 if len(z) == sheet.FEWEST**2 else 256
            return generator.integers(0, most, (len(z), 28, 28, 1), np.uint8)

        with mock.patch.object(sheet, "_means", means):
            found = taken(small_vae())
        self.assertEqual(found.tiles.shape[:2], (29, 29))  # not 33, nor 31
        self.assertLess(len(found.png()), 680_000)

    def test_large_images_are_averaged_down(self):
        vae, held = noisy_vae(128, 96, 1)
        found = taken(vae, held)
        self.assertEqual(found.tiles.shape[2:], (64, 48, 1))
        self.assertAllEqual(found.pixels, (128, 96))
        z = np.array([[found.low[0], found.high[1]]], np.float32)
        mean = np.clip(vae.decoder(z).mean()[0], 0, 1)
        expected = mean.reshape(64, 2, 48, 2, 1).mean((1, 3))
        self.assertAllClose(found.tiles[0, 0] / 255, expected, 0, 1 / 255)

    def test_survives_a_file(self):
        found = taken(small_vae())
        path = pathlib.Path(self.create_tempdir().full_path) / "plane.npz"
        found.save(path)
        for ours, theirs in zip(sheet.Sheet.load(path), found, strict=True):
            self.assertAllEqual(ours, theirs)
            self.assertEqual(type(ours), type(theirs))
        path.write_bytes(path.read_bytes()[:-40])
        with self.assertRaisesRegex(vae_tf.UserError, "plane.npz: .* damaged"):
            sheet.Sheet.load(path)
