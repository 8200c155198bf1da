import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf import networks


class GatedMLPTest(tf.test.TestCase):
    def test_is_a_chain_of_affine_maps_times_gates(self):
        gated = vae_tf.GatedMLP(hidden_units=(5, 4))
        x = np.random.default_rng(0).standard_normal((3, 2, 2, 1))
        features = gated(tf.constant(x, tf.float32))
        expected = x.reshape(3, 4)
        for layer, gate in zip(gated.hidden, gated.gates, strict=True):
            value, open_ = (
                expected @ part.kernel.numpy() + part.bias.numpy()
                for part in (layer, gate)
            )
            expected = value / (1 + np.exp(-open_))
        self.assertAllClose(features, expected, 1e-5, 1e-5)
        self.assertLen(gated.trainable_variables, 8)

    def test_a_signal_keeps_its_size(self):
        keras.utils.set_random_seed(0)
        x = tf.random.stateless_normal((256, 200), seed=[0, 1])
        for body in (vae_tf.GatedMLP((200,) * 5), vae_tf.MLP((200,) * 5)):
            size = np.std(body(x))
            self.assertBetween(size, 0.4, 2.5)

    def test_the_decoder_mirrors_the_encoder(self):
        decoder = networks.mirrored_gated()
        expected = vae_tf.GatedMLP().hidden_units[::-1]
        self.assertEqual(decoder.hidden_units, expected)


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


if __name__ == "__main__":
    tf.test.main()
