import pathlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from finished import FinishedRun

import vae_tf
from vae_tf.inference import held_out
from vae_tf.inference.families import FAMILIES
from vae_tf.inference.local import Local
from vae_tf.pictures import snapshots
from vae_tf.runs import directory
from vae_tf.runs.building import load_data_of
from vae_tf.serving.signatures import signatures


class HeldOutTest(FinishedRun):
    changes = {"inference": "mean_field", "epochs": 3}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae = vae_tf.load(cls.finished)
        cls.data = load_data_of(vae_tf.Config.load(cls.finished))

    def test_a_run_has_rows_for_every_image_of_train_and_validation(self):
        splits = self.data.num_examples
        for table, split in (
            (self.vae.encoder, "train"),
            (self.vae.held_out, "validation"),
        ):
            self.assertEqual(table.loc.shape, (splits[split], 2))
        self.assertAllEqual(self.vae.encoder.visits[:3] % 3, [0, 0, 0])

    def test_pictures_take_the_rows_of_validation(self):
        held = snapshots.held_out(self.data)
        snapshot = snapshots.take(self.vae, held, 3)
        # In two dimensions a frame shows z itself, one draw of each row.
        rows = self.vae.held_out(tf.range(len(held.images)))
        distances = (snapshot.points - rows.mean()) / rows.stddev()
        self.assertAllClose(np.mean(distances**2), 1.0, atol=0.2)
        last = directory.read_metrics(pathlib.Path(self.finished))[-1]
        self.assertAllClose(snapshot.elbo, last["val_elbo"], atol=0.5)
        self.assertAllClose(
            snapshot.reconstructions,
            self.vae.decoder(rows.mean()[:10]).mean(),
            1e-4,
        )

    @pytest.mark.slow
    def test_a_new_image_gets_the_posterior_that_infer_finds(self):
        images = next(iter(self.data.test))[:4]
        posterior = held_out.posterior_of(self.vae, images)
        found = vae_tf.infer(
            self.vae, images, family="mean_field", start="prior"
        )
        self.assertAllClose(posterior.mean(), found.posterior.mean())
        path = vae_tf.interpolations(self.vae, images[0], images[1])
        ends = self.vae.decoder(posterior.mean()[:2]).mean()
        self.assertAllClose(path[::10], ends, atol=1e-3)

    def test_evaluate_run(self):
        def found(vae, images, *args, **kwargs):
            # The prior: what `infer` finds is tested where it stands.
            count = len(images)
            parameters = {
                "loc": tf.zeros((count, 2)),
                "scale": tf.ones((count, 2)),
            }
            posterior = FAMILIES["mean_field"].distribution(parameters)
            nothing = [np.zeros(count)] * 4
            return Local(posterior, *nothing, "mean_field", parameters)

        with mock.patch.object(held_out, "infer", found):
            result = vae_tf.evaluate_run(self.finished, "test", 50, 20)
        self.assertEqual(result["inference"], "mean_field")
        self.assertAllClose(result["kl"], 0.0, atol=1e-5)
        self.assertLess(result["elbo"], result["log_marginal_likelihood"])
        self.assertBetween(result["knn_accuracy"], 0.0, 0.5)  # of noise
        for name, value in (("method", "quadrature"), ("tolerance", 0.1)):
            with self.assertRaisesRegex(
                vae_tf.UserError, f"^--{name}: expected .* no encoder, received"
            ):
                vae_tf.evaluate_run(self.finished, **{name: value})
        with self.assertRaisesRegex(vae_tf.UserError, "^inference_gaps: .*tab"):
            vae_tf.evaluate_run(self.finished, inference_gaps=True)

    @pytest.mark.slow
    def test_inferred_posteriors_are_no_worse_than_the_rows_of_training(self):
        images = self.data.in_order("validation", 50, 50)
        (first,) = images
        estimates, posterior = held_out.evaluate(self.vae, images, 100, 0)
        self.assertEqual(posterior.batch_shape, [50])
        noise = tf.random.stateless_normal((100, 50, 2), [0, 1])
        rows = self.vae.held_out(tf.range(50))
        log_weights = self.vae.draws_from(rows, first, noise).log_weights
        self.assertGreater(
            estimates.elbo.mean(), tf.reduce_mean(log_weights) - 0.05
        )
        self.assertLess(
            estimates.elbo.mean(), estimates.log_marginal_likelihood.mean()
        )

    def test_serves_what_takes_no_images(self):
        self.assertSameElements(
            signatures(self.vae, 5),
            [
                "decode",
                "serving_default",
                "decode_sample",
                "sample",
                "sample_png",
            ],
        )
