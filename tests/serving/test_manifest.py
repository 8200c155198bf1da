import json
import pathlib
import warnings

import tensorflow as tf
from small import combined

import vae_tf
from vae_tf.serving import check, manifest
from vae_tf.serving.signatures import signatures


class ManifestTest(tf.test.TestCase):
    def written(self, vae, **changes):
        bundle = pathlib.Path(self.create_tempdir().full_path)
        (bundle / "assets.extra").mkdir()
        (bundle / "saved_model.pb").write_text("graph")
        (bundle / "variables").mkdir()
        (bundle / "variables/variables.index").write_text("index")
        functions = signatures(vae, 4)
        traced = {
            name: tf.function(
                function, input_signature=specs, autograph=False
            ).get_concrete_function()
            for name, (function, specs) in functions.items()
        }
        arguments = {"num_importance_samples": 4, "trained_on": None}
        manifest.write(bundle, vae, functions, traced, **(arguments | changes))
        check.check_checksums(bundle)
        return json.loads((bundle / check.MANIFEST).read_text())

    def test_warns_of_a_version_that_is_another_model(self):
        root = pathlib.Path(self.create_tempdir().full_path)
        for name, shape, latents in (
            ("1", [8, 8, 1], 2),
            ("2", [8, 8, 1], 2),
            ("3", [64, 64, 3], 2),
            ("4", [64, 64, 3], 40),
        ):
            (root / name / "assets.extra").mkdir(parents=True)
            (root / name / check.MANIFEST).write_text(
                json.dumps({"image": {"shape": shape}, "latent_dim": latents})
            )
        (root / "5").mkdir()  # a SavedModel from elsewhere
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            manifest.warn_of_another(root / "2", root / "1")
            manifest.warn_of_another(root / "2", root / "5")
        for new, old, words in (
            ("3", "2", r"\[8, 8, 1\] and 2 latents.*\[64, 64, 3\] and 2"),
            ("4", "3", "2 latents.* and 40; a server"),
        ):
            with self.assertWarnsRegex(UserWarning, words):
                manifest.warn_of_another(root / new, root / old)

    def test_says_what_a_client_must_know(self):
        content = self.written(combined("normal", "iaf", "mixture"))
        self.assertEqual(content["likelihood"], "normal")
        self.assertEqual(content["posterior"], "iaf")
        self.assertEqual(content["prior"], "mixture")
        self.assertEqual(content["latent_dim"], 2)
        self.assertEqual(content["image"]["shape"], [4, 3, 1])
        self.assertEqual(content["image"]["support"], "interval")
        self.assertIn("k + u", content["image"]["preprocessing"])
        self.assertEqual(content["posterior_moment_draws"], 64)
        self.assertEqual(content["num_importance_samples"], 4)
        self.assertEqual(content["exported_with"]["vae_tf"], vae_tf.__version__)
        self.assertSameElements(
            content["sha256"], ["saved_model.pb", "variables/variables.index"]
        )
        image = {"dtype": "float32", "shape": [-1, 4, 3, 1]}
        latent = {"dtype": "float32", "shape": [-1, 2]}
        rows = {"dtype": "float32", "shape": [-1]}
        seed = {"dtype": "int64", "shape": [-1]}
        decode = {"inputs": {"z": latent}, "outputs": {"image": image}}
        files = {"image_bytes": {"dtype": "string", "shape": [-1]}}
        valid = {"valid": {"dtype": "bool", "shape": [-1]}}
        score = ("elbo", "kl", "log_marginal_likelihood", "reconstruction")
        self.assertEqual(
            content["signatures"],
            {
                "decode": decode,
                "serving_default": decode,
                "decode_sample": {
                    "inputs": {"z": latent, "seed": seed},
                    "outputs": {"image": image},
                },
                "encode_finite": {
                    "inputs": {"image": image},
                    "outputs": {"mean": latent, "stddev": latent, **valid},
                },
                "reconstruct_finite": {
                    "inputs": {"image": image},
                    "outputs": {"image": image, **valid},
                },
                "score_finite": {
                    "inputs": {"image": image, "seed": seed},
                    "outputs": dict.fromkeys(score, rows) | valid,
                },
                "encode_bytes": {
                    "inputs": {**files, "seed": seed},
                    "outputs": {
                        "mean": latent,
                        "stddev": latent,
                        "image": image,
                        **valid,
                    },
                },
                "score_bytes": {
                    "inputs": {**files, "seed": seed},
                    "outputs": dict.fromkeys(score, rows)
                    | {"image": image}
                    | valid,
                },
                "encode_sample": {
                    "inputs": {"image": image, "seed": seed},
                    "outputs": {"z": latent},
                },
                "explain": {
                    "inputs": {"image": image, "seed": seed},
                    "outputs": {
                        **dict.fromkeys(score, rows),
                        "reconstruction_per_pixel": image,
                    },
                },
                "encode": {
                    "inputs": {"image": image},
                    "outputs": {"mean": latent, "stddev": latent},
                },
                "sample": {
                    "inputs": {"seed": seed},
                    "outputs": {"z": latent, "mean": image, "image": image},
                },
                "sample_png": {
                    "inputs": {"seed": seed},
                    "outputs": {
                        "image_bytes": {"dtype": "string", "shape": [-1]}
                    },
                },
                "reconstruct": {
                    "inputs": {"image": image},
                    "outputs": {"image": image},
                },
                "score": {
                    "inputs": {"image": image, "seed": seed},
                    "outputs": dict.fromkeys(score, rows),
                },
            },
        )

    def test_a_closed_form_needs_no_draws_and_a_run_is_told(self):
        run = {"variant": "digits", "test": {"elbo": -20.5}}
        content = self.written(combined(), trained_on=run)
        self.assertEqual(content["posterior_moment_draws"], 0)
        self.assertEqual(content["image"]["support"], "binary")
        self.assertEqual(content["trained_on"], run)
        expected = {"binarization": "dynamic", "dequantization": "none"}
        self.assertEqual(
            content["image"]["conversion"], {"levels": 256, **expected}
        )
        run |= {"levels": 17, "binarization": "threshold"}
        content = self.written(combined(), trained_on=run)
        self.assertEqual(
            content["image"]["conversion"],
            {
                "levels": 17,
                "binarization": "threshold",
                "dequantization": "none",
            },
        )
