import io
import math
from unittest import mock

import image_files
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from PIL import Image
from small import IMAGE_SHAPE, combined, grid, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf
from vae_tf.evaluation import importance
from vae_tf.serving import signatures as signatures_module
from vae_tf.serving.signatures import signatures


def called(vae, num_importance_samples=20):
    """The signatures as graphs, as they are served."""
    return {
        name: function
        for name, (function, _) in signatures(
            vae, num_importance_samples
        ).items()
    }


class SignaturesTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae = small_vae()
        cls.call = called(cls.vae)

    def test_the_contract_s_names(self):
        self.assertEqual(
            list(self.call),
            [
                "serving_default",
                "decode",
                "decode_sample",
                "sample",
                "sample_png",
                "encode",
                "encode_sample",
                "reconstruct",
                "score",
                "explain",
                "encode_finite",
                "reconstruct_finite",
                "score_finite",
                "encode_bytes",
                "score_bytes",
            ],
        )

    def test_answers_are_the_model_s(self):
        images = random_bits(5)
        posterior = self.vae.encoder(images)
        encoded = self.call["encode"](images)
        self.assertAllClose(encoded["mean"], posterior.mean())
        self.assertAllClose(encoded["stddev"], posterior.stddev())
        z = posterior.mean()
        for name in ("decode", "serving_default"):
            self.assertAllClose(
                self.call[name](z)["image"], self.vae.decoder(z).mean()
            )
        self.assertAllClose(
            self.call["reconstruct"](images)["image"],
            self.vae.reconstruct(images),
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

    @parameterized.parameters(1, 3)
    def test_a_png_holds_the_mean_of_the_same_seed(self, channels):
        shape = (4, 3, channels)
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(6,)),
            vae_tf.Decoder(shape, "normal", hidden_units=(6,)),
        )
        call = called(vae)
        mean = call["sample"]([5, 6])["mean"]
        for png, expected in zip(
            call["sample_png"]([5, 6])["image_bytes"].numpy(), mean
        ):
            pixels = np.asarray(Image.open(io.BytesIO(png))).reshape(shape)
            self.assertAllEqual(pixels, np.round(255 * expected))

    def test_there_is_no_png_of_five_channels(self):
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(6,)),
            vae_tf.Decoder((4, 3, 5), "normal", hidden_units=(6,)),
        )
        self.assertNotIn("sample_png", signatures(vae, 1))

    def test_score_is_the_elbo_and_log_p(self):
        images = random_bits(3)
        # log p(x) = log sum over cells of p(x|z) p(z), to five digits.
        z, log_cell = grid()
        log_joint = self.vae.decoder(z[:, np.newaxis]).log_prob(
            images
        ) + self.vae.prior_distribution().log_prob(z[:, np.newaxis])
        exact = tf.reduce_logsumexp(log_joint, 0) + log_cell
        # 50 seeds for each image, which together are one estimate of p(x).
        score = called(self.vae, 2001)["score"](
            np.repeat(images, 50, axis=0), np.arange(150)
        )
        apart = tf.reshape(score["log_marginal_likelihood"], (3, 50))
        together = tf.reduce_logsumexp(apart, 1) - math.log(50)
        self.assertAllClose(together, exact, atol=0.02)
        score = {name: value[::50] for name, value in score.items()}
        kl = tfd.kl_divergence(
            self.vae.encoder(images), self.vae.prior_distribution()
        )
        self.assertAllClose(score["kl"], kl)
        self.assertAllClose(
            score["elbo"], score["reconstruction"] - score["kl"]
        )
        measured = importance.estimate(self.vae, images, 5000, seed=0)
        self.assertAllClose(score["elbo"], measured.elbo, atol=0.2)
        for value in score.values():
            self.assertEqual(value.shape, (3,))

    def test_draws_of_the_posterior(self):
        images = np.repeat(random_bits(2), 2000, axis=0)
        drawn = self.call["encode_sample"](images, np.arange(4000))["z"]
        posterior = self.vae.encoder(images)
        noise = (drawn - posterior.mean()) / posterior.stddev()
        self.assertAllClose(np.mean(noise, 0), [0, 0], atol=0.08)
        self.assertAllClose(np.cov(noise.numpy().T), np.eye(2), atol=0.1)
        # No use of a seed shares the draws of another.
        sampled = self.call["sample"](np.arange(4000))["z"]
        together = np.corrcoef(noise.numpy().T, sampled.numpy().T)
        self.assertAllClose(together, np.eye(4), atol=0.08)
        one = called(self.vae, 1)["score"](images[:100], np.arange(100))
        of_these = self.vae.decoder(drawn[:100]).log_prob(images[:100])
        self.assertAllGreater(np.abs(one["reconstruction"] - of_these), 1e-6)

    def test_draws_of_the_likelihood(self):
        z, seeds = np.repeat([[0.3, -1.0]], 4000, axis=0), np.arange(4000)
        z = z.astype(np.float32)
        drawn = self.call["decode_sample"](z, seeds)["image"]
        self.assertAllInSet(drawn, [0.0, 1.0])
        self.assertAllClose(
            np.mean(drawn, 0), self.vae.decoder(z[0]).mean(), atol=0.04
        )
        sample = self.call["sample"](seeds[:50])
        self.assertAllEqual(
            self.call["decode_sample"](sample["z"], seeds[:50])["image"],
            sample["image"],
        )

    def test_a_draw_depends_on_its_row_alone(self):
        images, seeds = random_bits(5), np.array([5, 3, 5, -1, 2**62])
        together = self.call["encode_sample"](images, seeds)["z"]
        for row in range(5):
            one = slice(row, row + 1)
            alone = self.call["encode_sample"](images[one], seeds[one])["z"]
            self.assertAllClose(together[row], alone[0], 1e-5)

    @parameterized.parameters(
        ("bernoulli", "mean_field", "standard_normal"),
        ("discretized_logistic", "full_covariance", "standard_normal"),
        ("normal", "iaf", "mixture"),
    )
    def test_an_explanation_is_a_score_taken_apart(self, *families):
        vae, images, seeds = combined(*families), random_bits(3), [4, 5, 6]
        # Chunks of three, of which 20 is no multiple.
        few = 3 * math.prod(IMAGE_SHAPE)
        with mock.patch.object(signatures_module, "FLOATS_AT_ONCE", few):
            call = called(vae)
            explained = call["explain"](images, seeds)
            score = call["score"](images, seeds)
        for name, value in score.items():
            self.assertAllClose(explained.pop(name), value, 1e-5, 1e-5)
        self.assertAllClose(
            tf.reduce_sum(explained.pop("reconstruction_per_pixel"), (1, 2, 3)),
            score["reconstruction"],
            1e-5,
        )
        if families[1] == "mean_field":
            self.assertAllClose(
                tf.reduce_sum(explained.pop("kl_per_dimension"), 1),
                score["kl"],
                1e-5,
            )
        self.assertEmpty(explained)

    def test_an_explanation_says_each_pixel_s_share(self):
        # Of one draw, log p(x_i|z) is x_i logits_i - log(1 + exp(logits_i)).
        call, images = called(self.vae, 1), random_bits(3)
        found = call["explain"](images, [1, 2, 3])["reconstruction_per_pixel"]
        mean = np.exp(found)
        mean = np.where(images == 1, mean, 1 - mean)
        # The same z, and so the same mean, for an image's other pixels.
        self.assertEqual(mean.shape, (3, *IMAGE_SHAPE))
        likelihood = tfd.Bernoulli(probs=mean)
        self.assertAllClose(likelihood.log_prob(images), found, 1e-4)

    def test_a_likelihood_that_does_not_say_its_pixels(self):
        class Sum(vae_tf.likelihoods.Bernoulli):
            def distribution(self, parameters):
                return tfd.Independent(tfd.Bernoulli(parameters), 3)

        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(6,)),
            vae_tf.Decoder(IMAGE_SHAPE, Sum(IMAGE_SHAPE), hidden_units=(6,)),
        )
        explained = called(vae)["explain"](random_bits(2), [1, 2])
        self.assertNotIn("reconstruction_per_pixel", explained)
        self.assertAllEqual(np.isfinite(explained["elbo"]), [True, True])

    def test_one_draw_of_score_is_one_draw_of_the_elbo(self):
        images = random_bits(200)
        score = called(self.vae, 1)["score"](images, np.arange(200))
        # log w = reconstruction + log p(z) - log q(z|x), whose mean is the
        # ELBO, and which is no constant.
        gap = score["log_marginal_likelihood"] - score["elbo"]
        self.assertAllClose(np.mean(gap), 0.0, atol=0.2)
        self.assertGreater(np.std(gap), 0.01)

    def test_score_of_a_row_depends_on_its_image_and_seed_alone(self):
        images, seeds = random_bits(4), np.array([9, 8, 7, 6])
        together = self.call["score"](images, seeds)
        order = [2, 0, 3]
        apart = self.call["score"](images[order], seeds[order])
        other = self.call["score"](images, seeds + 1)
        for name, value in together.items():
            self.assertAllClose(tf.gather(value, order), apart[name], 1e-5)
            if name != "kl":
                self.assertNotAllClose(value, other[name])

    def test_chunks_of_score_are_streamed(self):
        # Draws decoded at once change which draws they are, not how many count.
        images, seeds = random_bits(2), [1, 2]
        expected = called(self.vae, 4000)["score"](images, seeds)
        # Three at once, of which 7 is no multiple.
        few = 3 * math.prod(IMAGE_SHAPE)
        with mock.patch.object(signatures_module, "FLOATS_AT_ONCE", few):
            received = called(self.vae, 4000)["score"](images, seeds)
            seven = called(self.vae, 7)["score"]
            bounds = [
                seven(images, [2 * seed, 2 * seed + 1]) for seed in range(300)
            ]
        for name, value in received.items():
            self.assertAllClose(value, expected[name], atol=0.1)
        # Between the ELBO and log p(x), on average: with two draws too many or
        # too few in the sum, it would be off by log(9 / 7).
        bound = np.mean(
            [one["log_marginal_likelihood"] for one in bounds], axis=0
        )
        self.assertAllLess(bound - expected["log_marginal_likelihood"], 0.03)
        self.assertAllGreater(bound - expected["elbo"], 0.0)

    def test_a_wrong_value_is_nan_in_its_own_row(self):
        images = np.tile(random_bits(8), (8, 1, 1, 1))
        seeds = {"seed": np.arange(64)}
        for name, inputs in (
            ("encode", {}),
            ("reconstruct", {}),
            ("encode_sample", seeds),
            ("score", seeds),
            ("explain", seeds),
        ):
            whole = self.call[name](image=images, **inputs)
            for value in (np.nan, np.inf, -np.inf, -0.1, 1.1):
                wrong = images.copy()
                wrong[2, 1, 1, 0] = value
                for key, output in self.call[name](
                    image=wrong, **inputs
                ).items():
                    self.assertTrue(np.all(np.isnan(output[2])))
                    others = np.arange(64) != 2
                    self.assertAllEqual(output[others], whole[key][others])
        z = np.zeros((64, 2), np.float32)
        for name, inputs in (("decode", {}), ("decode_sample", seeds)):
            z[1, 0] = 0
            whole = self.call[name](z=z, **inputs)["image"]
            for value in (np.nan, np.inf):
                z[1, 0] = value
                output = self.call[name](z=z, **inputs)["image"]
                self.assertTrue(np.all(np.isnan(output[1])))
                others = np.arange(64) != 1
                self.assertAllEqual(output[others], whole[others])

    @parameterized.parameters("encode", "reconstruct", "score")
    def test_finite_is_what_json_can_hold(self, name):
        images = random_bits(4)
        images[1, 0, 0, 0], images[2, 1, 1, 0] = np.nan, 1.5
        seeds = {"seed": np.arange(4)} if name == "score" else {}
        plain = self.call[name](image=images, **seeds)
        finite = self.call[f"{name}_finite"](image=images, **seeds)
        valid = finite.pop("valid")
        self.assertAllEqual(valid, [True, False, False, True])
        self.assertSameElements(finite, plain)
        for key, value in finite.items():
            self.assertAllEqual(value[valid], plain[key][valid])
            self.assertAllEqual(value[~valid], tf.zeros_like(value[~valid]))

    def test_a_score_without_probability_is_not_valid(self):
        images = random_bits(3)
        images[1, 0, 0, 0] = 0.5
        finite = self.call["score_finite"](images, [1, 2, 3])
        self.assertAllEqual(finite["valid"], [True, False, True])
        self.assertAllEqual(finite["elbo"][1], 0.0)
        finite = self.call["encode_finite"](images)
        self.assertAllEqual(finite["valid"], [True, True, True])

    @parameterized.parameters(
        ("bernoulli", {}),
        ("bernoulli", {"binarization": "static", "levels": 17}),
        ("bernoulli", {"binarization": "threshold"}),
        ("normal", {}),
        ("discretized_logistic", {}),
    )
    def test_bytes_are_answered_as_the_image_in_them(self, likelihood, run):
        served = signatures(combined(likelihood), 20, run)
        call = {name: function for name, (function, _) in served.items()}
        file = image_files.png(image_files.noise(30, 20))
        photo = image_files.jpeg(image_files.noise(9, 40))
        files, seeds = [file, b"no image", photo, file], [4, 5, 6, 7]
        encoded = call["encode_bytes"](files, seeds)
        scored = call["score_bytes"](files, seeds)
        image = encoded.pop("image")
        self.assertAllEqual(scored.pop("image"), image)
        for found, name, more in (
            (encoded, "encode", []),
            (scored, "score", [seeds]),
        ):
            valid = found.pop("valid")
            self.assertAllEqual(valid, [True, False, True, True])
            expected = call[name](image, *more)
            self.assertSameElements(found, expected)
            for key, value in found.items():
                self.assertAllClose(value[valid], expected[key][valid], 1e-5)
                self.assertAllEqual(value[1], tf.zeros_like(value[1]))
        self.assertAllEqual(image[1], np.zeros(IMAGE_SHAPE))
        if likelihood == "bernoulli":
            self.assertAllInSet(image, [0.0, 1.0])
        # A draw is that of its seed, and of a row's own.
        drawn = run.get("binarization") != "threshold"
        drawn &= likelihood != "discretized_logistic"
        self.assertEqual(np.any(image[0] != image[3]), drawn)
        alone = call["encode_bytes"](files[2:3], seeds[2:3])
        self.assertAllEqual(alone["image"][0], image[2])

    def test_there_are_no_files_of_two_channels(self):
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(6,)),
            vae_tf.Decoder((4, 3, 2), "normal", hidden_units=(6,)),
        )
        self.assertNotIn("encode_bytes", signatures(vae, 1))

    @parameterized.parameters(
        ("bernoulli", 0.5), ("discretized_logistic", 0.5), ("normal", None)
    )
    def test_score_of_what_has_no_probability_is_nan(self, likelihood, grey):
        # A q(z|x) grey images do have: only log p(x) asks.
        images = random_bits(3)
        images[1, 0, 0, 0] = 0.5
        call = called(combined(likelihood))
        score = call["score"](images, [1, 2, 3])
        for value in score.values():
            self.assertAllEqual(
                np.isnan(value), [False, grey is not None, False]
            )
        self.assertAllEqual(
            np.isfinite(call["encode"](images)["mean"]), np.ones((3, 2), bool)
        )

    def test_outputs_are_float32(self):
        for name, function in self.call.items():
            for output in function.get_concrete_function().outputs:
                expected = tf.string if name == "sample_png" else tf.float32
                if output.dtype != tf.bool:  # `valid`
                    self.assertEqual(output.dtype, expected)

    def test_a_wrong_shape_is_an_invalid_argument(self):
        images = random_bits(2)
        for name, *inputs in (
            ("decode", tf.zeros((2, 3))),
            ("decode", tf.zeros((2,))),
            ("decode", tf.zeros((0, 2))),
            ("encode", tf.zeros((2, 4, 4, 1))),
            ("encode", tf.zeros((0, *IMAGE_SHAPE))),
            ("reconstruct", tf.zeros((2, 4, 4, 1))),
            ("sample", tf.zeros((2, 2), tf.int64)),
            ("sample_png", tf.zeros((0,), tf.int64)),
            ("score", images, tf.range(3, dtype=tf.int64)),
            ("encode_bytes", tf.constant([b""]), tf.range(2, dtype=tf.int64)),
            ("score_bytes", tf.constant([b""]), tf.range(2, dtype=tf.int64)),
            ("score", images, tf.range(1, dtype=tf.int64)),
            ("explain", images, tf.range(3, dtype=tf.int64)),
            ("encode_sample", images, tf.range(3, dtype=tf.int64)),
            ("decode_sample", tf.zeros((2, 2)), tf.range(3, dtype=tf.int64)),
            ("decode_sample", tf.zeros((2, 3)), tf.range(2, dtype=tf.int64)),
        ):
            function = self.call[name].python_function
            shapes = [tf.TensorSpec(None, value.dtype) for value in inputs]
            with self.assertRaises(tf.errors.InvalidArgumentError, msg=name):
                tf.function(function, input_signature=shapes)(*inputs)
