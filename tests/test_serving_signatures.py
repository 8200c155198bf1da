import numpy as np
import tensorflow as tf
from small import random_bits, small_vae

from vae_tf.serving.signatures import signatures


class SignaturesTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.vae = small_vae()
        self.call = {
            name: tf.function(function, input_signature=specs)
            for name, (function, specs) in signatures(self.vae).items()
            if name != "serving_default"
        }

    def test_answers_are_the_model_s(self):
        images = random_bits(5)
        posterior = self.vae.encoder(images)
        encoded = self.call["encode"](images)
        self.assertAllClose(encoded["mean"], posterior.mean())
        self.assertAllClose(encoded["stddev"], posterior.stddev())
        z = posterior.mean()
        self.assertAllClose(
            self.call["decode"](z)["image"], self.vae.decoder(z).mean()
        )

    def test_a_sample_depends_on_its_seed_alone(self):
        seeds = [3, 1, 2, -7, 2**62]
        together = self.call["sample"](seeds)
        for row, seed in enumerate(seeds):
            alone = self.call["sample"]([seed])
            self.assertAllEqual(together["z"][row], alone["z"][0])
            self.assertAllEqual(together["image"][row], alone["image"][0])
            self.assertAllClose(together["mean"][row], alone["mean"][0])
        self.assertNotAllClose(together["z"][0], together["z"][1])

    def test_samples_are_draws_of_the_model(self):
        drawn = self.call["sample"](np.arange(4000))
        self.assertAllClose(np.mean(drawn["z"], 0), [0, 0], atol=0.08)
        self.assertAllClose(np.cov(drawn["z"].numpy().T), np.eye(2), atol=0.1)
        mean = self.vae.decoder(drawn["z"]).mean()
        self.assertAllClose(drawn["mean"], mean)
        self.assertAllInSet(drawn["image"], [0.0, 1.0])
        self.assertAllClose(
            np.mean(drawn["image"] - mean, 0), np.zeros((4, 3, 1)), atol=0.04
        )

    def test_a_wrong_value_is_nan_in_its_own_row(self):
        images = random_bits(5)
        whole = self.call["encode"](images)
        for value in (np.nan, np.inf, -0.1, 1.1):
            images[2, 1, 1, 0] = value
            for name, output in self.call["encode"](images).items():
                self.assertTrue(np.all(np.isnan(output[2])))
                for row in (0, 1, 3, 4):
                    self.assertAllEqual(output[row], whole[name][row])
        z = np.zeros((3, 2), np.float32)
        whole = self.call["decode"](z)["image"]
        z[1, 0] = np.inf
        output = self.call["decode"](z)["image"]
        self.assertTrue(np.all(np.isnan(output[1])))
        self.assertAllEqual(output[0], whole[0])

    def test_a_wrong_shape_is_an_invalid_argument(self):
        for name, value in (
            ("decode", tf.zeros((2, 3))),
            ("encode", tf.zeros((2, 4, 4, 1))),
        ):
            function, _ = signatures(self.vae)[name]
            with self.assertRaises(
                (ValueError, tf.errors.InvalidArgumentError)
            ):
                tf.function(function)(value)
