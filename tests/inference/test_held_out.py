import pathlib

import numpy as np
import tensorflow as tf
from finished import FinishedRun

import vae_tf
from vae_tf.inference import held_out
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
        result = vae_tf.evaluate_run(self.finished, "test", 50, 20)
        self.assertEqual(result["inference"], "mean_field")
        self.assertLess(result["elbo"], result["log_marginal_likelihood"])
        self.assertBetween(result["knn_accuracy"], 0.0, 1.0)
        with self.assertRaisesRegex(
            vae_tf.UserError, "--method: expected importance, annealed"
        ):
            vae_tf.evaluate_run(self.finished, method="quadrature")

    def test_serves_what_takes_no_images(self):
        self.assertSameElements(
            signatures(self.vae, 5),
            ["decode", "serving_default", "sample", "sample_png"],
        )
