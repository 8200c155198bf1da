import dataclasses
import json
import os
from unittest import mock

import numpy as np
from finished import CONFIG, FinishedRun
from small import written

import vae_tf
from vae_tf.commands.evaluate import Evaluation
from vae_tf.data import pipeline, sources
from vae_tf.runs.measurement import METHODS


class MeasurementTest(FinishedRun):
    def test_evaluate_run(self):
        result = vae_tf.evaluate_run(self.finished, "test", 20, 50)
        path = self.finished / "evaluation-test.json"
        self.assertEqual(json.loads(path.read_text()), result)
        expected = {
            "dataset": "digits (scikit-learn)",
            "binarization": "dynamic",
            "dequantization": "none",
            "split": "test",
            "num_examples": 50,
            "likelihood": "bernoulli",
            "num_importance_samples": 20,
            "seed": 0,
            "units": "nats per example",
        }
        self.assertEqual({k: result[k] for k in expected}, expected)
        self.assertLess(result["elbo"], result["log_marginal_likelihood"])
        with np.load(path.with_suffix(".npz")) as file:
            for name in ("elbo", "log_marginal_likelihood"):
                self.assertEqual(file[name].shape, (50,))
                self.assertAllClose(file[name].mean(), result[name], 1e-12)

    def test_evaluate_run_says_how_far_to_trust_it(self):
        result = vae_tf.evaluate_run(self.finished, "test", 100, 50)
        self.assertEqual(result["method"], "importance")
        lower, upper = result["log_marginal_likelihood_interval"]
        self.assertBetween(result["log_marginal_likelihood"], lower, upper)
        self.assertAllClose(
            upper - lower, 2 * 1.96 * result["standard_error"], 0.15
        )
        self.assertBetween(result["monte_carlo_bias"], -0.5, 0)
        with np.load(self.finished / "evaluation-test.npz") as file:
            self.assertAllClose(
                np.mean(file["pareto_k"] > 0.7), result["pareto_k_over_0.7"]
            )
            self.assertAllClose(file["bias"].mean(), result["monte_carlo_bias"])

    def test_evaluate_run_by_quadrature(self):
        result = vae_tf.evaluate_run(
            self.finished, "test", 1000, 50, method="quadrature"
        )
        sampled = vae_tf.evaluate_run(self.finished, "test", 1000, 50)
        # All that the other method says, and two numbers of its own.
        self.assertSameElements(
            result.keys() - sampled.keys(),
            {"quadrature_error", "importance_weighted_bound"},
        )
        self.assertEmpty(sampled.keys() - result.keys())
        self.assertEqual(result["method"], "quadrature")
        self.assertEqual(result["elbo"], sampled["elbo"])
        self.assertEqual(
            result["importance_weighted_bound"],
            sampled["log_marginal_likelihood"],
        )
        self.assertBetween(result["quadrature_error"], 0, 1e-3)
        # Both say the same of each image within their errors.
        vae_tf.evaluate_run(
            self.finished, "test", 1000, 50, method="quadrature"
        )
        path = self.finished / "evaluation-test.npz"
        with np.load(path) as file:
            apart = file["importance_weighted_bound"] - file["bias"]
            apart = apart - file["log_marginal_likelihood"]
            error = 3.5 * np.sqrt(file["variance"]) + file["quadrature_error"]
            self.assertAllLess(np.abs(apart) - error, 0)
            self.assertAllClose(
                file["log_marginal_likelihood"].mean(),
                result["log_marginal_likelihood"],
                1e-12,
            )
        values = json.loads(path.with_suffix(".json").read_text())
        self.assertEqual(values, result)

    def test_methods_are_those_of_the_command(self):
        fields = dataclasses.fields(Evaluation)
        choices = {f.name: f.metadata.get("choices") for f in fields}
        self.assertEqual(choices["method"], METHODS)

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
            ({"method": "guess"}, "--method: expected .* received 'guess'"),
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
