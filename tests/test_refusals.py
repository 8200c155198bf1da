import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from absl.testing import parameterized
from small import IMAGE_SHAPE, combined, random_bits, small_vae
from tensorflow_probability import distributions as tfd

import vae_tf


class Categorical(keras.layers.Layer):
    """A posterior head that cannot be reparameterised."""

    def call(self, features):
        return tfd.OneHotCategorical(logits=features[:, :2])


class Logistic(keras.layers.Layer):
    """A reparameterised posterior head whose noise is not normal."""

    def call(self, features):
        noise = tfd.Independent(tfd.Logistic(tf.zeros((1, 2)), 1.0), 1)
        return tfd.TransformedDistribution(
            noise, tfp.bijectors.Shift(features[:, :2])
        )


class NormalHead(keras.layers.Layer):
    """A normal posterior that says nothing of itself."""

    def call(self, features):
        return tfd.MultivariateNormalDiag(
            features[:, :2], tf.exp(features[:, 2:4])
        )


class BijectorHead(keras.layers.Layer):
    """A head that says more of itself than is true: its phi hides in a
    bijector.
    """

    one_pass_density = True

    def call(self, features):
        noise = tfd.MultivariateNormalDiag(tf.zeros((1, 2)), tf.ones(2))
        return tfd.TransformedDistribution(
            noise, tfp.bijectors.Shift(features[:, :2])
        )


class ImagesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        (
            "shape",
            np.zeros((2, 5, 5, 1)),
            r"\('B', 4, 3, 1\), .*\(2, 5, 5, 1\)",
        ),
        ("flat", np.zeros((2, 12)), r"expected shape .*\(2, 12\)"),
        ("nan", np.full((2, *IMAGE_SHAPE), np.nan), r"in \[0, 1\].*nan"),
        ("bytes", np.full((2, *IMAGE_SHAPE), 255), r"from 255.0 to 255.0"),
        ("negative", np.full((2, *IMAGE_SHAPE), -1.0), r"from -1.0 to -1.0"),
        ("grey", np.full((2, *IMAGE_SHAPE), 0.5), "continuous Bernoulli"),
    )
    def test_bad_images_are_refused_where_they_enter(self, images, message):
        vae = small_vae()
        vae.compile("adam")
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(2)
        before = vae.get_weights()
        for action in (
            lambda: vae.fit(images, verbose=0),
            lambda: vae.fit(dataset, verbose=0),
            lambda: vae.fit(random_bits(2), validation_data=images, verbose=0),
            lambda: vae.evaluate(images, verbose=0),
            lambda: vae.adapt(images),
            lambda: vae.adapt(dataset),
            lambda: vae.elbo(images, seed=1),
            lambda: vae.reconstruct(images),
            lambda: vae.log_joint(images, tf.zeros((2, 2))),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                action()
        for old, new in zip(before, vae.get_weights()):
            self.assertAllEqual(old, new)

    def test_an_empty_dataset_is_refused(self):
        empty = tf.data.Dataset.from_tensor_slices(random_bits(1)).take(0)
        vae = small_vae()
        vae.compile("adam")
        for action in (vae.fit, vae.adapt):
            with self.assertRaisesRegex(vae_tf.UserError, "received none"):
                action(empty.batch(1))

    def test_pixels_off_the_levels_are_refused(self):
        vae = combined("discretized_logistic")
        levels = np.round(random_bits(2) * 0.3 * 255) / 255
        vae.check_images(levels.astype(np.float32))
        with self.assertRaisesRegex(vae_tf.UserError, "k/255 with whole k"):
            vae.check_images(levels + 0.3 / 255)
        combined("continuous_bernoulli").check_images(levels + 0.3 / 255)


class PartsTest(tf.test.TestCase):
    def test_refuses_a_posterior_that_is_not_reparameterised(self):
        for head, name in (
            (Categorical(), "OneHotCategorical"),
            (Logistic(), "TransformedDistribution"),
        ):
            encoder = vae_tf.Encoder(2, posterior=head)
            with self.assertRaisesRegex(
                vae_tf.UserError, f"reparameterised .* received tfd.{name}"
            ):
                vae_tf.VAE(encoder, vae_tf.Decoder(IMAGE_SHAPE))

    def test_refuses_parts_that_do_not_fit(self):
        encoder = vae_tf.Encoder(2)
        encoder(tf.zeros((1, 5, 5, 1)))
        with self.assertRaisesRegex(vae_tf.UserError, r"\(5, 5, 1\), received"):
            vae_tf.VAE(encoder, vae_tf.Decoder(IMAGE_SHAPE))
        for parts, message in (
            (
                {"prior": vae_tf.StandardNormal(3)},
                r"prior: .* shape \(2,\), received \(\) and event shape \(3,\)",
            ),
            (
                {"decoder": {"likelihood": vae_tf.Bernoulli((1, 1, 1))}},
                r"likelihood: .*\(4, 3, 1\), received .* \(1, 1, 1\)",
            ),
        ):
            decoder = vae_tf.Decoder(IMAGE_SHAPE, **parts.pop("decoder", {}))
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.VAE(vae_tf.Encoder(2), decoder, **parts)
        for prior, message in (
            ("cauchy", "prior: expected one of"),
            (keras.layers.Flatten(), "prior: .*received a Flatten"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                vae_tf.VAE(
                    vae_tf.Encoder(2), vae_tf.Decoder(IMAGE_SHAPE), prior=prior
                )


class CombinationsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        (
            "stl_iaf",
            ("iaf", "standard_normal", vae_tf.ELBO(1, "stl")),
            {},
            "2 pass",
        ),
        (
            "dreg_iaf",
            ("iaf", "mixture", vae_tf.IWAE(3, "dreg")),
            {},
            "2 passes",
        ),
        ("vamp_iaf", ("iaf", "vamp", "elbo"), {}, "not made of q.*2 passes"),
        (
            "em_vamp",
            ("mean_field", "vamp", "elbo"),
            {"train_variables": "alternate"},
            "train_variables: expected all .* 'alternate': p.z. is made",
        ),
        (
            "bits_q",
            ("full_covariance", "standard_normal", vae_tf.ELBO(free_bits=0.1)),
            {},
            "free_bits: .* factorise.* received 0.1 with posterior FullCov",
        ),
        (
            "bits_p",
            ("mean_field", "mixture", vae_tf.ELBO(free_bits=0.1)),
            {},
            "free_bits: .* prior Mixture",
        ),
        (
            "unknown_variables",
            ("mean_field", "mixture", "elbo"),
            {"train_variables": "phi"},
            "train_variables: expected one of all, .*received 'phi'",
        ),
        (
            "unknown",
            ("mean_field", "mixture", "elbow"),
            {},
            "one of elbo, iwae",
        ),
    )
    def test_refuses(self, families, kwargs, message):
        with self.assertRaisesRegex(vae_tf.UserError, message):
            combined("bernoulli", *families, **kwargs)

    def test_a_normal_head_of_the_user_s_needs_no_declaration(self):
        for objective, prior in (
            ("iwae", "vamp"),
            (vae_tf.ELBO(free_bits=0.1), "standard_normal"),
        ):
            vae = vae_tf.VAE(
                vae_tf.Encoder(2, posterior=NormalHead()),
                vae_tf.Decoder(IMAGE_SHAPE),
                prior,
                objective,
            )
        self.assertTrue(vae.encoder.factorizes)

    def test_a_head_whose_phi_cannot_be_held_fixed(self):
        for objective in ("elbo", vae_tf.IWAE(3, "plain")):
            small = vae_tf.Encoder(2, posterior=BijectorHead())
            vae_tf.VAE(small, vae_tf.Decoder(IMAGE_SHAPE), objective=objective)
        for objective in ("iwae", vae_tf.ELBO(1, "stl")):
            small = vae_tf.Encoder(2, posterior=BijectorHead())
            with self.assertRaisesRegex(
                vae_tf.UserError, "plain with posterior BijectorHead, whose log"
            ):
                vae_tf.VAE(
                    small, vae_tf.Decoder(IMAGE_SHAPE), objective=objective
                )

    def test_iaf_with_iwae_is_plain(self):
        vae = combined("bernoulli", "iaf", objective="iwae")
        self.assertEqual(vae.gradient_estimator, "plain")
        vae = combined("bernoulli", "full_covariance", objective="iwae")
        self.assertEqual(vae.gradient_estimator, "dreg")

    def test_a_biased_estimator_is_said_to_be(self):
        with self.assertWarnsRegex(UserWarning, "stl is biased"):
            combined(objective=vae_tf.IWAE(3, "stl"))


class SettingsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (lambda: vae_tf.Mixture(2, num_components=0), "num_components: .* 0"),
        (lambda: vae_tf.VampPrior(2, num_components=1.5), "received 1.5"),
        (lambda: vae_tf.ELBO(num_samples=2.5), "num_samples: .*integer .* 2.5"),
        (lambda: vae_tf.IAF(3, flow_units=()), r"flow_units: .*\(\)"),
        (lambda: vae_tf.IAF(3, flow_depth=0), "flow_depth, .*received 0"),
    )
    def test_refused_where_they_are_given(self, made, message):
        with self.assertRaisesRegex(ValueError, message):
            made()
