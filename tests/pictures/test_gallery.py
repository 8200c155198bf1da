import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from PIL import Image
from small import random_bits, small_vae

import vae_tf
from vae_tf.pictures import gallery, snapshots

HELD = snapshots.HeldOut(random_bits(60), np.arange(60) % 3)


class GalleryTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = pathlib.Path(self.create_tempdir().full_path)

    def test_snapshots_come_back_in_order(self):
        vae = small_vae()
        for epoch in (8, 0, 100):
            gallery.record(self.run_dir, snapshots.take(vae, HELD, epoch))
        epochs = [s.epoch for s in gallery.recorded(self.run_dir)]
        self.assertEqual(epochs, [0, 8, 100])
        epochs = [s.epoch for s in gallery.recorded(self.run_dir, 99)]
        self.assertEqual(epochs, [0, 8])

    def test_a_damaged_snapshot_is_said_and_left_out(self):
        vae = small_vae()
        for epoch in (0, 1):
            gallery.record(self.run_dir, snapshots.take(vae, HELD, epoch))
        directory = self.run_dir / "figures/snapshots"
        (directory / "epoch-x.npz").write_text("of another")
        content = (directory / "epoch-00001.npz").read_bytes()
        for damaged in (content[:-30], b"", content[:60] + content[61:]):
            (directory / "epoch-00001.npz").write_bytes(damaged)
            with self.assertWarnsRegex(UserWarning, "00001.npz: no picture"):
                found = gallery.recorded(self.run_dir)
            self.assertEqual([s.epoch for s in found], [0])

    def test_where_no_picture_can_be_written_that_is_said(self):
        (self.run_dir / "figures").write_text("a file")
        snapshot = snapshots.take(small_vae(), HELD, 0)
        for write in (
            lambda: gallery.record(self.run_dir, snapshot),
            lambda: gallery.write(self.run_dir, {"x": Image.new("L", (2, 2))}),
        ):
            with self.assertWarnsRegex(UserWarning, "figures.*: no picture"):
                write()
        self.assertEqual(gallery.recorded(self.run_dir), [])
        self.assertEqual((self.run_dir / "figures").read_text(), "a file")

    @parameterized.product(latent_dim=(1, 2, 5), labelled=(False, True))
    def test_every_run_has_its_pictures(self, latent_dim, labelled):
        held = HELD if labelled else HELD._replace(labels=None)
        vae = small_vae(latent_dim=latent_dim)
        pictures = gallery.draw([snapshots.take(vae, held, 0)], [])
        gallery.write(self.run_dir, pictures)
        for name, picture in pictures.items():
            path = self.run_dir / "figures" / f"{name}.png"
            self.assertAllEqual(np.asarray(Image.open(path)), picture)

    @parameterized.parameters((8, 8, 1), (9, 6, 3))
    def test_grey_and_colour(self, *shape):
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(8,)),
            vae_tf.Decoder(shape, "normal", hidden_units=(8,)),
        )
        images = np.random.default_rng(0).random((20, *shape), np.float32)
        held = snapshots.HeldOut(images, None)
        gallery.draw([snapshots.take(vae, held, 0)], [])

    def test_animations_have_a_frame_for_each_snapshot(self):
        vae, taken = small_vae(), []
        bias = vae.decoder.likelihood.bias
        for epoch in range(11):
            bias.assign(bias + 0.3)
            taken.append(snapshots.take(vae, HELD, epoch, seed=epoch))
        (self.run_dir / "figures").mkdir()
        gallery.animate(self.run_dir, taken)
        for name in ("posterior", "prior_predictive"):
            path = self.run_dir / "figures" / f"{name}.gif"
            with Image.open(path) as animation:
                self.assertEqual(animation.n_frames, 11)
                frames = set()
                for number in range(11):
                    animation.seek(number)
                    frames.add(animation.convert("RGB").tobytes())
                self.assertLen(frames, 11)
