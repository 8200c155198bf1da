import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf import networks


class MLPTest(tf.test.TestCase):
    def test_is_a_chain_of_affine_maps_and_nonlinearities(self):
        mlp = vae_tf.MLP(hidden_units=(5, 4), activation="tanh")
        x = np.random.default_rng(0).standard_normal((3, 2, 2, 1))
        features = mlp(tf.constant(x, tf.float32))
        expected = x.reshape(3, 4)
        for kernel, bias in zip(mlp.weights[::2], mlp.weights[1::2]):
            expected = np.tanh(expected @ kernel.numpy() + bias.numpy())
        self.assertAllClose(features, expected, 1e-5, 1e-5)

    def test_takes_any_depth(self):
        for hidden_units, width in (((), 48), ((3,), 3), ((3, 4, 5, 6), 6)):
            features = vae_tf.MLP(hidden_units)(tf.ones((2, 4, 4, 3)))
            self.assertEqual(features.shape, (2, width))
        # A linear model of both kinds.
        vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=()),
            vae_tf.Decoder((4, 3, 1), hidden_units=()),
        )

    def test_the_decoder_mirrors_the_encoder(self):
        decoder = networks.mirrored_mlp()
        self.assertEqual(decoder.hidden_units, vae_tf.MLP().hidden_units[::-1])


class ConvTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ((28, 28, 1), (32, 64)),
        ((64, 64, 3), (32, 64, 64, 128)),
        ((8, 8, 1), (32,)),
        ((4, 3, 1), (32,)),
        ((33, 21, 3), (32, 64)),
        ((1, 1, 2), (32,)),
    )
    def test_takes_any_image(self, image_shape, stages):
        self.assertEqual(networks.default_stages(image_shape), stages)
        images = tf.random.stateless_uniform((2, *image_shape), seed=[0, 1])
        features = vae_tf.ConvEncoder()(images)
        self.assertEqual((features.shape[0], features.shape.rank), (2, 2))
        image = vae_tf.ConvDecoder(image_shape)(tf.ones((2, 5)))
        self.assertEqual(image.shape[:3], (2, *image_shape[:2]))
        self.assertAllInRange(features, -100.0, 100.0)

    def test_every_weight_is_reached(self):
        encoder = vae_tf.ConvEncoder((4, 6))
        decoder = vae_tf.ConvDecoder((7, 5, 1), (6, 4))
        z = tf.random.stateless_normal((3, 2), seed=[0, 1])
        for body, x in (
            (encoder, tf.random.stateless_uniform((3, 7, 5, 1), seed=[0, 2])),
            (decoder, z),
        ):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(body(x) ** 2)
            for slope in tape.gradient(total, body.trainable_variables):
                self.assertGreater(np.abs(slope).max(), 0)

    def test_a_block_starts_close_to_the_identity(self):
        x = tf.random.stateless_normal((2, 6, 6, 8), seed=[0, 1])
        y = networks.ResidualBlock(8)(x)
        self.assertLess(np.std(y - x), 0.5 * np.std(x))
        self.assertGreater(np.std(y - x), 0)

    def test_an_up_convolution_convolves_the_image_of_twice_the_size(self):
        x = tf.random.stateless_normal((2, 5, 4, 3), seed=[0, 1])
        up = networks.UpConvolution(6)
        up.build(x.shape)
        up.bias.assign(tf.range(6.0))
        twice = tf.repeat(tf.repeat(x, 2, 1), 2, 2)
        expected = tf.nn.conv2d(twice, up.kernel, 1, "SAME") + up.bias
        self.assertAllClose(up(x), expected, 1e-5, 1e-5)

    def test_pixels_move_with_the_latent_where_the_decoder_looks(self):
        # Every pixel of an odd-sized image depends on z.
        decoder = vae_tf.ConvDecoder((7, 5, 1), (6, 4), "elu")
        z = tf.random.stateless_normal((1, 2), seed=[0, 1])
        a, b = decoder(z).numpy(), decoder(z + 1.0).numpy()
        self.assertAllGreater(np.abs(a - b).max((0, 3)), 0)

    def test_round_trip(self):
        decoder = vae_tf.ConvDecoder((7, 5, 1), (6, 4), "elu")
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(decoder)
        )
        self.assertEqual(again.get_config(), decoder.get_config())


class Lists(keras.layers.Layer):
    """A user's body whose layers lie in lists, in lists of lists, in dicts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flat = [keras.layers.Dense(4) for _ in range(2)]
        self.named = {"a": [keras.layers.Dense(3)]}

    def call(self, x):
        x = keras.ops.reshape(x, (-1, 12))
        for layer in (*self.flat, *self.named["a"]):
            x = layer(x)
        return x


class CheckpointTest(parameterized.TestCase, tf.test.TestCase):
    """TensorFlow's own checkpoints hold every variable, wherever it lies."""

    def models(self, make):
        for seed in (0, 1):
            keras.utils.set_random_seed(seed)
            vae = make()
            vae.compile("adam", run_eagerly=True)
            vae.train_on_batch(np.ones((2, 4, 3, 1)))
            yield vae

    @parameterized.named_parameters(
        (
            "conv_iaf_mixture",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, "iaf", network="conv", hidden_units=(2,)),
                vae_tf.Decoder((4, 3, 1), network="conv", hidden_units=(2,)),
                prior=vae_tf.Mixture(2, num_components=2),
            ),
        ),
        (
            "vamp",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, hidden_units=(3,)),
                vae_tf.Decoder((4, 3, 1), hidden_units=(3,)),
                prior=vae_tf.VampPrior(2, num_components=2),
            ),
        ),
        (
            "lists_of_the_user_s",
            lambda: vae_tf.VAE(
                vae_tf.Encoder(2, network=Lists()),
                vae_tf.Decoder((4, 3, 1), hidden_units=(3,)),
            ),
        ),
    )
    def test_of_a_model(self, make):
        one, other = self.models(make)
        one.objective.beta = 0.25
        path = self.create_tempdir().full_path + "/model"
        saved = tf.train.Checkpoint(model=one).save(path)
        status = tf.train.Checkpoint(model=other).restore(saved)
        status.assert_existing_objects_matched()
        pairs = zip(
            one.variables + one.optimizer.variables,
            other.variables + other.optimizer.variables,
        )
        for ours, theirs in pairs:
            self.assertAllEqual(ours, theirs)
        self.assertEqual(other.objective.beta, 0.25)

    def test_of_a_part(self):
        one, other = (
            vae_tf.Encoder(2, "iaf", hidden_units=(3, 4)) for _ in range(2)
        )
        for part in (one, other):
            part(tf.zeros((1, 4, 3, 1)))
        path = self.create_tempdir().full_path + "/part"
        saved = tf.train.Checkpoint(encoder=one).save(path)
        tf.train.Checkpoint(encoder=other).restore(saved)
        for ours, theirs in zip(one.variables, other.variables):
            self.assertAllEqual(ours, theirs)


class PartTest(parameterized.TestCase, tf.test.TestCase):
    IMAGES = np.random.default_rng(0).random((5, 4, 3, 1)).astype(np.float32)

    def test_predict_gives_tensors(self):
        encoder, decoder = vae_tf.Encoder(2), vae_tf.Decoder((4, 3, 1))
        mean, stddev = encoder.predict(self.IMAGES, batch_size=2, verbose=0)
        posterior = encoder(self.IMAGES)
        self.assertAllClose(mean, posterior.mean(), 1e-5, 1e-5)
        self.assertAllClose(stddev, posterior.stddev(), 1e-5, 1e-5)
        image = decoder.predict(mean, verbose=0)
        self.assertAllClose(image, decoder(mean).mean(), 1e-5, 1e-5)

    @parameterized.parameters(*vae_tf.posteriors.POSTERIORS)
    def test_functional_models_of_parts(self, posterior):
        encoder = vae_tf.Encoder(2, posterior, hidden_units=(4,))
        decoder = vae_tf.Decoder((4, 3, 1), hidden_units=(4,))
        encoder(self.IMAGES), decoder(tf.zeros((1, 2)))
        image, z = keras.Input((4, 3, 1)), keras.Input((2,))
        whole = keras.Model(image, decoder(encoder(image)[0]))
        self.assertAllClose(
            whole.predict(self.IMAGES, verbose=0),
            decoder(encoder(self.IMAGES).mean()).mean(),
            1e-5,
            1e-5,
        )
        path = self.create_tempdir().full_path + "/decoder.keras"
        keras.Model(z, decoder(z)).save(path)
        again = keras.saving.load_model(path)
        points = np.ones((3, 2), np.float32)
        self.assertAllClose(again(points), decoder(points).mean(), 1e-6)
