import dataclasses

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs.building import (
    build,
    filled,
    load_data_of,
    updates_per_step,
)

DESCRIBED = {"image_shape": [8, 8, 1], "splits": {"train": 1000}}


class BuildTest(parameterized.TestCase, tf.test.TestCase):
    def test_every_setting_reaches_its_part(self):
        config = vae_tf.Config(
            latent_dim=3,
            likelihood="normal",
            normal_scale="per_pixel",
            posterior="iaf",
            flow_depth=3,
            flow_units=(7,),
            prior="mixture",
            num_components=5,
            hidden_units=(12, 6),
            activation="tanh",
            objective="iwae",
            num_samples=4,
            gradient_estimator="plain",
            train_variables="alternate",
            seed=9,
        )
        vae = build(config, DESCRIBED)
        self.assertEqual(vae.decoder.image_shape, (8, 8, 1))
        self.assertEqual(vae.encoder.latent_dim, 3)
        for part, expected in (
            (vae.encoder.network, {"hidden_units": (12, 6)}),
            (vae.decoder.network, {"hidden_units": (6, 12)}),
            (vae.encoder.network, {"activation": "tanh"}),
            (vae.decoder.network, {"activation": "tanh"}),
            (vae.encoder.posterior, {"flow_depth": 3, "flow_units": (7,)}),
            (vae.decoder.likelihood, {"normal_scale": "per_pixel"}),
            (vae.prior, {"num_components": 5}),
            (vae.objective, {"num_samples": 4, "gradient_estimator": "plain"}),
            (vae, {"train_variables": "alternate", "seed": 9}),
        ):
            for name, value in expected.items():
                self.assertEqual(getattr(part, name), value, name)

    def test_mixed_precision_is_of_the_model_alone(self):
        build(vae_tf.Config(mixed_precision=True), DESCRIBED)
        self.assertEqual(keras.config.dtype_policy().name, "float32")

    def test_a_warm_up_of_epochs_is_one_of_updates(self):
        config = vae_tf.Config(
            kl_warmup_epochs=3, batch_size=300, beta=2.0, free_bits=0.25
        )
        objective = build(config, DESCRIBED).objective
        self.assertEqual(objective.kl_warmup_steps, 3 * 4)  # 300 300 300 100
        self.assertEqual((objective.beta, objective.free_bits), (2.0, 0.25))
        twice = dataclasses.replace(config, train_variables="alternate")
        self.assertEqual(updates_per_step(twice), 2)
        objective = build(twice, DESCRIBED).objective
        self.assertEqual(objective.kl_warmup_steps, 2 * 3 * 4)

    @parameterized.parameters(
        # Images, what is set -> epochs, warm-up, pictures.
        (60_000, {"batch_size": 256}, (80, 4, 8)),
        (60_000, {"batch_size": 256, "epochs": 8}, (8, 3, 1)),
        (1_439, {"batch_size": 256}, (400, 150, 40)),
        (1_439, {"objective": "iwae"}, (400, None, 40)),
        (
            1_439,
            {"epochs": 5, "kl_warmup_epochs": 0, "figures_every": 0},
            (5, 0, 0),
        ),
    )
    def test_lengths_that_are_unset(self, images, given, expected):
        config = filled(
            vae_tf.Config(**given), DESCRIBED | {"splits": {"train": images}}
        )
        lengths = config.epochs, config.kl_warmup_epochs, config.figures_every
        self.assertEqual(lengths, expected)
        # Once filled, they stay.
        again = filled(config, DESCRIBED)
        self.assertEqual(again, config)

    def test_data_is_what_the_settings_name(self):
        config = vae_tf.Config(
            dataset="digits", likelihood="normal", batch_size=50, seed=3
        )
        data = load_data_of(config)
        self.assertEqual(data.dequantization, "uniform")
        self.assertEqual((data.batch_size, data.seed), (50, 3))
        images = next(iter(data.train)).numpy()
        self.assertEqual(images.shape, (50, 8, 8, 1))
        self.assertGreater(len(np.unique(images)), 1000)  # no longer 17 levels
