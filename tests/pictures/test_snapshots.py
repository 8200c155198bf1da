import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, combined, random_bits, small_vae

import vae_tf
from vae_tf.pictures import latent_points, snapshots

HELD = snapshots.HeldOut(random_bits(600), np.arange(600) % 3)


class SnapshotsTest(parameterized.TestCase, tf.test.TestCase):
    def test_points_are_samples_not_means(self):
        vae = small_vae()
        one, same, other = (
            snapshots.take(vae, HELD, 0, seed=seed) for seed in (1, 1, 2)
        )
        for ours, theirs in zip(one, same, strict=True):
            self.assertAllEqual(ours, theirs)
        self.assertNotAllClose(one.points, other.points)
        # Over seeds they have the posterior's mean and deviation.
        points = np.stack(
            [snapshots.take(vae, HELD, 0, seed=s).points for s in range(25)]
        )
        posterior = vae.encoder(HELD.images)
        errors = (points.mean(0) - posterior.mean()) / posterior.stddev()
        self.assertBetween(np.std(errors) * 5, 0.9, 1.1)
        self.assertAllClose(
            np.mean(points.std(0, ddof=1) / posterior.stddev()), 1.0, 0.02
        )

    def test_an_untrained_encoder_gives_a_round_blob_at_0(self):
        vae = vae_tf.VAE(vae_tf.Encoder(2), vae_tf.Decoder(IMAGE_SHAPE), seed=0)
        snapshot = snapshots.take(vae, HELD, 0)
        self.assertLess(np.abs(snapshot.points.mean(0)).max(), 0.3)
        covariance = np.cov(snapshot.points.T)
        low, high = np.linalg.eigvalsh(covariance)
        self.assertBetween(low, 0.3, 3.0)
        self.assertLess(high / low, 2.5)

    def test_measures_are_those_of_the_model(self):
        vae = small_vae()
        snapshot = snapshots.take(vae, HELD, 4)
        self.assertEqual(snapshot.epoch, 4)
        expected = vae.elbo(HELD.images, seed=0, num_samples=100)
        self.assertAllClose(snapshot.elbo, np.mean(expected), atol=0.3)
        posterior = vae.encoder(HELD.images)
        loc, scale = posterior.mean(), posterior.stddev()
        kl = 0.5 * (loc**2 + scale**2 - 1) - tf.math.log(scale)
        self.assertAllClose(snapshot.per_dimension, np.mean(kl, 0), 1e-4)
        self.assertEndsWith(snapshot.per_dimension_name, "(nats)")

    def test_cells_of_the_grid_are_decoded_one_by_one(self):
        vae = small_vae()
        images, values = snapshots.prior_predictive(vae, "means")
        self.assertEqual((values[0], values[-1]), (-3.0, 3.0))
        side = len(values)
        for row, column in ((0, 0), (3, 5), (side - 1, 2)):
            z = [[values[column], values[side - 1 - row]]]
            cell = vae.decoder(tf.constant(z)).mean()[0]
            self.assertAllClose(images[row, column], cell, 1e-5)
        samples, _ = snapshots.prior_predictive(vae, "samples")
        self.assertContainsSubset(np.unique(samples), [0.0, 1.0])
        # Samples of those very cells.
        many = np.mean(
            [snapshots.prior_predictive(vae, seed=s)[0] for s in range(200)], 0
        )
        self.assertLess(np.abs(many - images).max(), 0.2)
        self.assertLess(np.abs(many - images).mean(), 0.04)

    @parameterized.parameters(1, 3)
    def test_without_a_plane_of_its_own_the_prior_is_drawn_from(self, dim):
        vae = small_vae(latent_dim=dim)
        snapshot = snapshots.take(vae, HELD, 0)
        self.assertEmpty(snapshot.values)
        self.assertEqual(snapshot.points.shape, (600, 2))
        self.assertEqual(snapshot.per_dimension.shape, (dim,))

    def test_the_plane_of_a_wide_latent_is_that_of_the_means(self):
        vae = small_vae(latent_dim=4)
        snapshot = snapshots.take(vae, HELD, 0)
        means = vae.encoder(HELD.images).mean().numpy()
        plane = latent_points.principal_plane(means)
        self.assertAllClose(
            snapshot.plane @ snapshot.plane.T, plane @ plane.T, atol=1e-4
        )
        again = snapshots.take(vae, HELD, 1, previous=snapshot)
        self.assertAllClose(again.plane, snapshot.plane, atol=1e-4)

    @parameterized.parameters(
        ("full_covariance", "standard_normal"),
        ("iaf", "mixture"),
        ("mean_field", "vamp"),
    )
    def test_families_that_do_not_factorise(self, posterior, prior):
        vae = combined("bernoulli", posterior, prior)
        snapshot = snapshots.take(vae, HELD, 0)
        self.assertStartsWith(snapshot.per_dimension_name, "variance")
        means = vae.encoder(HELD.images).mean().numpy()
        self.assertAllClose(snapshot.per_dimension, means.var(0), 1e-3, 1e-6)
        expected = 0 if prior == "standard_normal" else 2000
        self.assertLen(snapshot.prior_points, expected)

    def test_without_labels(self):
        held = HELD._replace(labels=None)
        snapshot = snapshots.take(small_vae(), held, 0)
        self.assertEmpty(snapshot.labels)
        self.assertTrue(np.isnan(snapshot.accuracy))

    def test_survives_a_file(self):
        snapshot = snapshots.take(small_vae(), HELD, 3)
        path = pathlib.Path(self.create_tempdir().full_path) / "s.npz"
        snapshot.save(path)
        again = snapshots.Snapshot.load(path)
        for ours, theirs in zip(again, snapshot, strict=True):
            self.assertAllEqual(ours, theirs)
            self.assertEqual(type(ours), type(theirs))
        path.write_bytes(path.read_bytes()[:1000])
        with self.assertRaisesRegex(vae_tf.UserError, "s.npz: .* damaged"):
            snapshots.Snapshot.load(path)

    def test_held_out_images_come_with_their_classes(self):
        data = vae_tf.load_data("digits")
        held = snapshots.held_out(data)
        self.assertEqual(held.images.shape, (179, 8, 8, 1))
        self.assertAllEqual(held.labels, data.labels("validation"))
        first = next(iter(data.validation))[:50]
        self.assertAllEqual(held.images[:50], first)

    def test_refuses(self):
        with self.assertRaisesRegex(vae_tf.UserError, "shows: .* 'modes'"):
            snapshots.prior_predictive(small_vae(), "modes")


class NeighboursTest(tf.test.TestCase):
    def test_agrees_with_all_distances(self):
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 3, 200)
        z = generator.normal(size=(200, 2)) + labels[:, np.newaxis]
        distances = np.sum((z[:, np.newaxis] - z) ** 2, -1)
        np.fill_diagonal(distances, np.inf)
        nearest = labels[np.argsort(distances, 1)[:, :5]]
        votes = (nearest[..., np.newaxis] == np.arange(3)).sum(1).argmax(1)
        self.assertAllClose(
            snapshots.neighbour_accuracy(z, labels), np.mean(votes == labels)
        )

    def test_separate_classes_are_told_apart_and_mixed_ones_are_not(self):
        generator = np.random.default_rng(0)
        labels = np.arange(1000) % 10 + 7
        z = 0.1 * generator.normal(size=(1000, 2))
        accuracy = snapshots.neighbour_accuracy(z, labels)
        self.assertBetween(accuracy, 0.03, 0.2)
        z[:, 0] += labels
        self.assertEqual(snapshots.neighbour_accuracy(z, labels), 1.0)

    def test_too_few_neighbours(self):
        few = np.zeros((5, 2)), np.zeros(5, int)
        self.assertTrue(np.isnan(snapshots.neighbour_accuracy(*few)))


class WalksTest(parameterized.TestCase, tf.test.TestCase):
    def test_traversals_decode_one_dimension_at_a_time(self):
        vae, (image,) = small_vae(), random_bits(1)
        values = np.array([-1.0, 0.5], np.float32)
        found = vae_tf.traversals(vae, image, values)
        self.assertEqual(found.shape, (2, 2, *IMAGE_SHAPE))
        (mean,) = vae.encoder(image[np.newaxis]).mean().numpy()
        z = tf.constant([[mean[0], 0.5]])
        self.assertAllClose(found[1, 1], vae.decoder(z).mean()[0], 1e-5)

    @parameterized.parameters("linear", "spherical")
    def test_interpolations_join_two_reconstructions(self, path):
        vae, images = small_vae(), random_bits(2)
        found = vae_tf.interpolations(vae, *images, 7, path)
        self.assertEqual(found.shape, (7, *IMAGE_SHAPE))
        self.assertAllClose(found[[0, -1]], vae.reconstruct(images), 1e-4)
