import dataclasses
import functools
import json
import os
import pathlib
from unittest import mock

import numpy as np
import pytest
from finished import CONFIG, FinishedRun
from small import written

import vae_tf
from vae_tf.commands.evaluate import Evaluation
from vae_tf.data import pipeline, sources
from vae_tf.evaluation import growth
from vae_tf.runs import measurement
from vae_tf.runs.measurement import METHODS
from vae_tf.runs.sums import sealed

loaded = functools.cache(measurement.load)


class MeasurementTest(FinishedRun):
    def setUp(self):
        super().setUp()
        # One model for each run, which keeps what was compiled for it.
        mock.patch.object(measurement, "load", loaded).start()
        self.addCleanup(mock.patch.stopall)

    def test_evaluate_run(self):
        result = vae_tf.evaluate_run(self.finished, "test", 100, 50)
        path = self.finished / "evaluation-test.json"
        self.assertEqual(json.loads(path.read_text()), result)
        expected = {
            "dataset": "digits (scikit-learn)",
            "binarization": "dynamic",
            "dequantization": "none",
            "split": "test",
            "num_examples": 50,
            "likelihood": "bernoulli",
            "num_importance_samples": 100,
            "seed": 0,
            "epochs_trained": 2,
            "epochs_asked": 2,
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
            self.assertAllEqual(file["num_samples"], [100] * 50)
            self.assertAllClose(
                dict(zip(file["bound_sizes"], file["bounds"].mean(0))),
                {
                    int(size): bound
                    for size, bound in result[
                        "importance_weighted_bound_by_samples"
                    ].items()
                },
            )

    def test_evaluate_run_says_what_the_elbo_is_made_of(self):
        with mock.patch.object(measurement, "DECOMPOSED", 30):
            result = vae_tf.evaluate_run(self.finished, "test", 100, 50)
        found = result["decomposition"]
        self.assertEqual(found["num_examples"], 30)
        with np.load(self.finished / "evaluation-test.npz") as file:
            self.assertAllClose(found["rate"], file["kl"][:30].mean(), 1e-5)
        self.assertAllClose(found["rate"], sum(found["kl_per_dimension"]), 1e-4)
        self.assertAllClose(
            found["rate"],
            found["mutual_information"] + found["marginal_kl"],
            1e-6,
        )
        self.assertLess(found["mutual_information"], np.log(30))
        nats = -result["log_marginal_likelihood"]
        self.assertAllClose(result["bits_per_dimension"], nats / np.log(2) / 64)
        for name in ("knn_accuracy", "linear_probe_accuracy"):
            self.assertBetween(result[name], 0.0, 1.0)

    @pytest.mark.slow
    def test_evaluate_run_to_a_tolerance(self):
        fixed = vae_tf.evaluate_run(self.finished, "test", 100, 50)
        with mock.patch.multiple(growth, STRETCH=100, MOST=1000):
            result = vae_tf.evaluate_run(
                self.finished, "test", 100, 50, tolerance=0.02
            )
        self.assertEqual(
            result.keys() - fixed.keys(),
            {
                "median_num_importance_samples",
                "tolerance",
                "tolerance_not_reached",
            },
        )
        with np.load(self.finished / "evaluation-test.npz") as file:
            number, error = file["num_samples"], np.sqrt(file["variance"])
        self.assertEqual(result["num_importance_samples"], number.max())
        self.assertGreater(number.max(), number.min())
        self.assertAllEqual(number[error >= 0.02], [1000] * sum(error >= 0.02))
        self.assertLess(
            result["monte_carlo_standard_error"],
            fixed["monte_carlo_standard_error"],
        )
        # The same images, within both errors.
        apart = (
            result["log_marginal_likelihood"] - fixed["log_marginal_likelihood"]
        )
        apart += fixed["monte_carlo_bias"]
        self.assertLess(abs(apart), 3.5 * fixed["monte_carlo_standard_error"])

    def test_evaluate_run_by_quadrature(self):
        result = vae_tf.evaluate_run(
            self.finished, "test", 100, 50, method="quadrature"
        )
        sampled = vae_tf.evaluate_run(self.finished, "test", 100, 50)
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
        vae_tf.evaluate_run(self.finished, "test", 100, 50, method="quadrature")
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

    # Of the encoder's family alone: a compilation less.
    @mock.patch.object(measurement, "GAUSSIAN", ())
    @pytest.mark.slow
    def test_evaluate_run_by_annealing_with_bounds_and_gaps(self):
        result = vae_tf.evaluate_run(
            self.finished,
            "test",
            100,
            50,
            method="annealed",
            num_annealing_steps=20,
            num_chains=8,
            bidirectional=True,
            inference_gaps=True,
        )
        with np.load(self.finished / "evaluation-test.npz") as file:
            arrays = dict(file)
        for name in ("log_marginal_likelihood", "importance_weighted_bound"):
            self.assertAllClose(arrays[name].mean(), result[name], 1e-9)
        # Two estimators of one number.
        error = np.hypot(
            result["monte_carlo_standard_error"],
            result["inference_gaps"]["log_marginal_likelihood_standard_error"]
            / 10,
        )
        self.assertAllClose(
            result["log_marginal_likelihood"],
            result["inference_gaps"]["log_marginal_likelihood"],
            atol=4 * error,
        )
        self.assertEqual(result["num_annealing_steps"], 20)
        self.assertBetween(result["acceptance"], 0.3, 1)
        bounds = result["bidirectional"]
        self.assertAllClose(
            bounds["upper"] - bounds["lower"], bounds["gap"], 1e-4, 1e-4
        )
        self.assertBetween(
            bounds["gap"], -4 * bounds["gap_standard_error"], 1.0
        )
        gaps = result["inference_gaps"]
        self.assertEqual(gaps["num_examples"], 50)
        self.assertEqual(gaps["family"], "mean_field")
        self.assertGreater(gaps["amortization"], 0)
        self.assertAllClose(
            arrays["gaps_amortization"].mean(), gaps["amortization"], 1e-6
        )

    def test_methods_are_those_of_the_command(self):
        fields = dataclasses.fields(Evaluation)
        choices = {f.name: f.metadata.get("choices") for f in fields}
        self.assertEqual(choices["method"], METHODS)

    @pytest.mark.slow
    def test_a_full_disk_loses_nothing(self):
        run_dir = self.copy()
        before = vae_tf.evaluate_run(run_dir, "test", 2, num_examples=5)
        files = {
            path.name: path.read_bytes() for path in run_dir.glob("evaluation*")
        }
        for name in ("savez", "write_text"):
            full = mock.Mock(side_effect=OSError(28, "No space left on device"))
            place = np if name == "savez" else pathlib.Path
            with (
                mock.patch.object(place, name, full),
                self.assertRaisesRegex(
                    measurement.NotWritten, "received No space left on device"
                ) as caught,
            ):
                vae_tf.evaluate_run(run_dir, "test", 3, num_examples=5)
            result = caught.exception.result
            self.assertEqual(result["num_importance_samples"], 3)
            self.assertSameElements(result, before)
            for file, content in files.items():
                self.assertEqual((run_dir / file).read_bytes(), content)

    def test_evaluate_run_refuses_other_data(self):
        run_dir = self.copy()
        values = json.loads((run_dir / "config.json").read_text())
        values["data"]["checksum"] = "sha256:0"
        with sealed(run_dir / "config.json") as path:
            path.write_text(json.dumps(values))
        with self.assertRaisesRegex(vae_tf.UserError, "the data of the run"):
            vae_tf.evaluate_run(run_dir, "validation", 2)
        self.assertFalse((run_dir / "evaluation-validation.json").exists())

    def test_evaluate_run_refuses(self):
        for arguments, message in (
            ({"split": "dev"}, "--split: expected one of .* received 'dev'"),
            ({"method": "guess"}, "--method: expected .* received 'guess'"),
            ({"tolerance": 0.0}, "tolerance: expected .* received 0.0"),
            ({"num_examples": 0}, "--num_examples: expected .* received 0"),
            (
                {"method": "annealed", "num_chains": 0},
                "num_chains: expected .* received 0",
            ),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.evaluate_run(self.finished, **arguments)
        with (
            mock.patch.object(os, "access", return_value=False),
            self.assertRaisesRegex(vae_tf.UserError, "that can be written"),
        ):
            vae_tf.evaluate_run(self.finished)

    @pytest.mark.slow
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
