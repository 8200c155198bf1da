import dataclasses
import json
import pathlib

import tensorflow as tf
from absl.testing import parameterized

from vae_tf import (
    config,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    vae,
)
from vae_tf.config import Config
from vae_tf.settings import UserError

DATA = {
    "variant": "x",
    "levels": 2,
    "image_shape": [1, 1, 1],
    "splits": {"train": 3, "validation": 2, "test": 1},
    "checksum": "sha256:0",
}


class ConfigTest(parameterized.TestCase, tf.test.TestCase):
    def test_choices_are_the_members_of_each_family(self):
        self.assertEqual(
            config.LIKELIHOODS,
            {k: v.support for k, v in likelihoods.LIKELIHOODS.items()},
        )
        self.assertSameElements(config.POSTERIORS, posteriors.POSTERIORS)
        self.assertSameElements(config.PRIORS, priors.PRIORS)
        self.assertSameElements(config.NETWORKS, networks.ENCODER_BODIES)
        self.assertSameElements(config.NETWORKS, networks.DECODER_BODIES)
        self.assertSameElements(config.OBJECTIVES, objectives.OBJECTIVES)
        self.assertSameElements(config.TRAIN_VARIABLES, vae.TRAIN_VARIABLES)
        self.assertEqual(
            config.GRADIENT_ESTIMATORS, objectives.GRADIENT_ESTIMATORS
        )
        self.assertEqual(config.NORMAL_SCALES, likelihoods.NORMAL_SCALES)

    def test_survives_json(self):
        before = Config(
            latent_dim=3, hidden_units=(7,), binarization="static", epochs=2
        )
        run_dir = self.write(dataclasses.asdict(before))
        after = Config.load(run_dir)
        self.assertEqual(
            after, dataclasses.replace(before, run_dir=str(run_dir))
        )

    @parameterized.named_parameters(
        ("below_minimum", {"latent_dim": 0}, "integer >= 1, received 0"),
        ("bool_for_int", {"latent_dim": True}, "integer >= 1, received True"),
        ("float_for_int", {"epochs": 1.5}, "integer >= 1, received 1.5"),
        ("nan", {"learning_rate": float("nan")}, "finite number > 0.0"),
        ("at_exclusive_limit", {"learning_rate": 0.0}, "> 0.0, received 0.0"),
        ("unknown_name", {"likelihood": "poisson"}, "logistic, received 'poi"),
        ("none_for_required", {"optimizer": None}, "adam.*received None"),
        ("no_layers", {"hidden_units": ()}, r"each >= 1, received \(\)"),
        ("empty_layer", {"hidden_units": (4, 0)}, r"received \(4, 0\)"),
        ("too_large", {"seed": 2**31}, "<= 2147483647, received 2147483648"),
        ("beyond_all", {"batch_size": 10**400}, "<= 2147483647, received 100"),
        ("word_for_bool", {"resume": "yes"}, "true or false, received 'yes'"),
    )
    def test_refuses(self, values, message):
        (name,) = values
        with self.assertRaisesRegex(
            UserError, f"--{name}: expected .*{message}"
        ):
            Config(**values)

    @parameterized.parameters(
        ("beta", 2.0), ("kl_warmup_epochs", 5), ("free_bits", 0.5)
    )
    def test_iwae_has_no_divergence_to_weigh(self, name, value):
        Config(**{name: value})
        with self.assertRaisesRegex(
            UserError, f"--{name}: .*iwae.* received {value}"
        ):
            Config(objective="iwae", **{name: value})

    @parameterized.parameters(
        ("posterior", "iaf"),
        ("prior", "vamp"),
        ("train_variables", "alternate"),
        ("binarization", "dynamic"),
    )
    def test_a_table_has_neither_encoder_nor_bits_that_change(
        self, name, value
    ):
        Config(**{name: value})
        with self.assertRaisesRegex(
            UserError, f"--{name}: expected .* mean_field, .* received '{value}"
        ):
            Config(inference="mean_field", **{name: value})

    def test_numbers_take_their_field_s_type(self):
        self.assertIsInstance(Config(learning_rate=1).learning_rate, float)
        self.assertEqual(Config(hidden_units=[3, 2]).hidden_units, (3, 2))

    def test_a_path_is_absolute(self):
        for path, expected in (
            (pathlib.Path("mnist"), pathlib.Path.cwd() / "mnist"),
            (pathlib.Path("~/crops"), pathlib.Path.home() / "crops"),
        ):
            self.assertEqual(Config(dataset=path).dataset, str(expected))
        self.assertEqual(Config(dataset="mnist").dataset, "mnist")

    @parameterized.named_parameters(
        ("missing", None, "--run_dir: expected a run .*No such file"),
        ("truncated", '{"latent_dim": 2', "received a damaged file"),
        ("another_json", "[1, 2]", "under `data`, checksum, image_shape"),
        (
            "edited",
            json.dumps({"latent_dim": "two", "data": DATA}),
            "config.json: --latent_dim: expected an integer",
        ),
        (
            "beyond_any_number",
            json.dumps({"learning_rate": 10**400, "data": DATA}),
            "config.json: --learning_rate: expected a finite number",
        ),
        (
            "versions_of_nothing",
            json.dumps({"data": DATA, "versions": 3}),
            "expected versions of packages by name .* received 3",
        ),
        *(
            (
                f"data_{number}",
                json.dumps({"data": DATA | {name: value}}),
                "under `data`, checksum, image_shape",
            )
            for number, (name, value) in enumerate(
                (
                    ("levels", "2"),
                    ("levels", 0),
                    ("image_shape", [1, 1]),
                    ("image_shape", [1, 1, 10**30]),
                    ("splits", {"train": 3}),
                    ("checksum", None),
                )
            )
        ),
    )
    def test_damaged_run(self, text, message):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        if text is not None:
            (run_dir / "config.json").write_text(text)
        with self.assertRaisesRegex(UserError, message):
            Config.load(run_dir)

    def write(self, values):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        values |= {"data": DATA}
        (run_dir / "config.json").write_text(json.dumps(values))
        return run_dir
