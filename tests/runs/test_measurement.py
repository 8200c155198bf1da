import dataclasses
import json
import os
from unittest import mock

import numpy as np
from finished import CONFIG, FinishedRun
from small import written

import vae_tf
from vae_tf.data import pipeline, sources


class MeasurementTest(FinishedRun):
    def test_evaluate_run(self):
        result = vae_tf.evaluate_run(self.finished, "test", 20, 50)
        path = self.finished / "evaluation-test.json"
        self.assertEqual(json.loads(path.read_text()), result)
        self.assertContainsSubset(
            {
                "dataset": "digits (scikit-learn)",
                "binarization": "dynamic",
                "dequantization": "none",
                "split": "test",
                "num_examples": 50,
                "likelihood": "bernoulli",
                "num_importance_samples": 20,
                "seed": 0,
                "units": "nats per example",
            }.items(),
            result.items(),
        )
        self.assertLess(result["elbo"], result["log_marginal_likelihood"])
        with np.load(path.with_suffix(".npz")) as file:
            for name in ("elbo", "log_marginal_likelihood"):
                self.assertEqual(file[name].shape, (50,))
                self.assertAllClose(file[name].mean(), result[name], 1e-12)

    def test_evaluate_run_refuses_other_data(self):
        run_dir = self.copy()
        values = json.loads((run_dir / "config.json").read_text())
        values["data"]["checksum"] = "sha256:0"
        (run_dir / "config.json").write_text(json.dumps(values))
        with self.assertRaisesRegex(vae_tf.UserError, "the data of the run"):
            vae_tf.evaluate_run(run_dir, "validation", 2)
        self.assertFalse((run_dir / "evaluation-validation.json").exists())

    def test_evaluate_run_refuses(self):
        for arguments, message in (
            ({"split": "dev"}, "--split: expected one of .* received 'dev'"),
            ({"num_examples": 0}, "--num_examples: expected .* received 0"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.evaluate_run(self.finished, **arguments)
        with (
            mock.patch.object(os, "access", return_value=False),
            self.assertRaisesRegex(vae_tf.UserError, "that can be written"),
        ):
            vae_tf.evaluate_run(self.finished)

    def test_a_streamed_dataset_trains_and_is_measured(self):
        digits = sources.load_source("digits", None)
        streamed = dataclasses.replace(
            digits, images={k: written(v) for k, v in digits.images.items()}
        )
        run_dir = self.create_tempdir().full_path + "/run"
        os.chdir(self.create_tempdir().full_path)
        self.addCleanup(os.chdir, self.finished.parent)
        with mock.patch.object(pipeline, "load_source", lambda *_: streamed):
            run = vae_tf.train(vae_tf.Config(run_dir=run_dir, **CONFIG))
            result = vae_tf.evaluate_run(run_dir, "validation", 20)
        self.assertLen(run.history, 2)
        self.assertEqual(result["num_examples"], 179)
