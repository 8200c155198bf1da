"""Bodies of an encoder and a decoder: image -> features, latent -> features."""

import math
from collections.abc import Callable

import keras

UNITS = (400, 256)  # of an encoder's hidden layers
MIRRORED = UNITS[::-1]
STAGES = (32, 64, 64, 128)  # channels at 1/2, 1/4, ... of the image's size


@keras.saving.register_keras_serializable("vae_tf")
class MLP(keras.layers.Layer):
    """Multilayer perceptron: `h_l = activation(W_l h_{l-1} + b_l)`, with `h_0`
    the flattened input.

    Args:
      hidden_units: width of each layer, from the input on.
      activation: name of a Keras activation.

    Call arguments:
      inputs: `[B, ...]`, an image or a latent.

    Returns:
      Features `[B, hidden_units[-1]]`.
    """

    # Variance of a kernel times its inputs. He et al. 2015, arXiv:1502.01852: a
    # signal that keeps its size through the layers, or a deep network prunes
    # latents before it uses them.
    gain = 2.0

    def __init__(self, hidden_units=None, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden_units = tuple(
            UNITS if hidden_units is None else hidden_units
        )
        self.activation = activation
        self.hidden = self._dense(activation, self.gain)

    def _dense(self, activation, gain):
        return [
            keras.layers.Dense(
                units,
                activation,
                kernel_initializer=keras.initializers.VarianceScaling(
                    gain, "fan_in"
                ),
                dtype=self.dtype_policy,
            )
            for units in self.hidden_units
        ]

    def build(self, input_shape):
        width = math.prod(input_shape[1:])
        for layer in self.hidden:
            layer.build((None, width))
            width = layer.units
        super().build(input_shape)

    def call(self, inputs):
        features = keras.ops.reshape(inputs, (-1, math.prod(inputs.shape[1:])))
        for layer in self.hidden:
            features = layer(features)
        return features

    def get_config(self):
        return super().get_config() | {
            "hidden_units": self.hidden_units,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable("vae_tf")
class GatedMLP(MLP):
    """Multilayer perceptron of gated layers: `h_l = (W_l h_{l-1} + b_l) *
    sigmoid(V_l h_{l-1} + c_l)`, the second factor a gate for each unit.

    Dauphin et al. 2017, arXiv:1612.08083; in VAEs, Tomczak and Welling 2018,
    arXiv:1705.07120.

    Args:
      hidden_units: width of each layer, from the input on.

    Call arguments:
      inputs: `[B, ...]`, an image or a latent.

    Returns:
      Features `[B, hidden_units[-1]]`.
    """

    gain = 4.0  # Gates start half open.

    def __init__(self, hidden_units=None, **kwargs):
        super().__init__(hidden_units, **kwargs | {"activation": None})
        self.gates = self._dense("sigmoid", 1.0)

    def build(self, input_shape):
        super().build(input_shape)
        for layer, gate in zip(self.hidden, self.gates, strict=True):
            gate.build((None, layer.kernel.shape[0]))

    def call(self, inputs):
        features = keras.ops.reshape(inputs, (-1, math.prod(inputs.shape[1:])))
        for layer, gate in zip(self.hidden, self.gates, strict=True):
            features = layer(features) * gate(features)
        return features


def _convolution(channels, strides=1, scale=2.0, **kwargs):
    """A 3x3 convolution; `scale` 2 is He initialisation."""
    return keras.layers.Conv2D(
        channels,
        3,
        strides,
        padding="same",
        kernel_initializer=keras.initializers.VarianceScaling(scale, "fan_in"),
        **kwargs,
    )


@keras.saving.register_keras_serializable("vae_tf")
class UpConvolution(keras.layers.Layer):
    """A 3x3 convolution of the image at twice its size, each pixel repeated.

    A repeated pixel meets sums of the kernel's taps k, so this is a transposed
    convolution of stride 2 whose 4x4 kernel has, along each axis, the taps
    (k3, k2 + k3, k1 + k2, k1): 4 products for each pixel and channel, not 9.

    Args:
      channels: of the output.

    Call arguments:
      features: `[B, H, W, F]`.

    Returns:
      `[B, 2 H, 2 W, channels]`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(3, 3, input_shape[-1], self.channels),
            initializer=keras.initializers.VarianceScaling(2.0, "fan_in"),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.channels,), initializer="zeros", name="bias"
        )
        super().build(input_shape)

    def call(self, features):
        kernel = self.kernel
        for axis in (0, 1):
            # One axis at a time: OpenVINO reverses no two at once.
            kernel = keras.ops.flip(kernel, axis)
            before, after = ([[0, 0]] * 4 for _ in range(2))
            before[axis], after[axis] = [1, 0], [0, 1]
            kernel = keras.ops.pad(kernel, before) + keras.ops.pad(
                kernel, after
            )
        kernel = keras.ops.transpose(kernel, (0, 1, 3, 2))
        return self.bias + keras.ops.conv_transpose(
            features, kernel, strides=2, padding="same"
        )

    def get_config(self):
        return super().get_config() | {"channels": self.channels}


@keras.saving.register_keras_serializable("vae_tf")
class ResidualBlock(keras.layers.Layer):
    """h + W_2 activation(W_1 activation(h)), W_1 and W_2 3x3 convolutions.

    He et al. 2016, arXiv:1603.05027. The second one starts small, so that the
    block starts close to the identity without normalising its batch.

    Args:
      channels: of input and output.
      activation: name of a Keras activation.

    Call arguments:
      features: `[B, H, W, channels]`.
    """

    def __init__(self, channels, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.activation = activation
        self.first = _convolution(channels, dtype=self.dtype_policy)
        self.second = _convolution(
            channels, scale=0.02, dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build(input_shape)
        super().build(input_shape)

    def call(self, features):
        activate = keras.activations.get(self.activation)
        hidden = self.first(activate(features))
        return features + self.second(activate(hidden))

    def get_config(self):
        return super().get_config() | {
            "channels": self.channels,
            "activation": self.activation,
        }


class _Convolutional(keras.layers.Layer):
    """What both convolutional bodies share: an image of any height and width
    and the stages at a half, a quarter, ... of its size.
    """

    def __init__(self, hidden_units=None, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden_units = hidden_units and tuple(hidden_units)
        self.activation = activation

    def get_config(self):
        return super().get_config() | {
            "hidden_units": self.hidden_units,
            "activation": self.activation,
        }


def default_stages(image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels of as many stages as leave the shorter side at 4 or more pixels
    (one at least), from the image on.
    """
    halvings = int(math.log2(max(min(image_shape[:2]) / 4, 2)))
    return (STAGES + STAGES[-1:] * halvings)[:halvings]


@keras.saving.register_keras_serializable("vae_tf")
class ConvEncoder(_Convolutional):
    """Stages of a strided convolution, which halves height and width (rounded
    up), and a residual block.

    Args:
      hidden_units: channels of each stage, from the image on; None chooses by
        the image's size.
      activation: name of a Keras activation.

    Call arguments:
      images: `[B, H, W, C]`, of any height, width and number of channels.

    Returns:
      Features `[B, F]`.
    """

    def build(self, input_shape):
        units = self.hidden_units or default_stages(input_shape[1:])
        # Two flat lists: Keras does not save what lies in nested ones.
        dtype = {"dtype": self.dtype_policy}
        self.downs = [_convolution(channels, 2, **dtype) for channels in units]
        self.blocks = [
            ResidualBlock(n, self.activation, **dtype) for n in units
        ]
        shape = tuple(input_shape)
        for down, block in zip(self.downs, self.blocks, strict=True):
            down.build(shape)
            shape = tuple(down.compute_output_shape(shape))
            block.build(shape)
        super().build(input_shape)

    def call(self, images):
        # Centred: pixels in [0, 1] have a mean that would be most of them.
        features = images - 0.5
        for down, block in zip(self.downs, self.blocks, strict=True):
            features = block(down(features))
        features = keras.activations.get(self.activation)(features)
        return keras.ops.reshape(features, (-1, math.prod(features.shape[1:])))


@keras.saving.register_keras_serializable("vae_tf")
class ConvDecoder(_Convolutional):
    """The mirror of `ConvEncoder`: stages of a residual block and a convolution
    on the image of twice the size, whose result is cut to the size that was
    halved.

    Args:
      image_shape: `(H, W, C)`.
      hidden_units: channels of each stage, from the latent on; None chooses by
        the image's size.
      activation: name of a Keras activation.

    Call arguments:
      z: `[B, D]`.

    Returns:
      Features `[B, H, W, F]`.
    """

    def __init__(
        self, image_shape, hidden_units=None, activation="relu", **kwargs
    ):
        super().__init__(hidden_units, activation, **kwargs)
        self.image_shape = tuple(image_shape)

    def build(self, input_shape):
        units = self.hidden_units or default_stages(self.image_shape)[::-1]
        size = self.image_shape[:2]
        # After each stage, from the latent on.
        self.sizes: list[tuple[int, ...]] = []
        for _ in units:
            self.sizes.insert(0, size)
            size = tuple(-(-side // 2) for side in size)
        self.first_shape = (*size, units[0])
        dtype = {"dtype": self.dtype_policy}
        self.project = keras.layers.Dense(
            math.prod(self.first_shape),
            kernel_initializer="he_normal",
            **dtype,
        )
        self.project.build(input_shape)
        self.blocks = [
            ResidualBlock(n, self.activation, **dtype) for n in units
        ]
        # After the last stage, at the image's own size, half the channels.
        after = (*units[1:], max(units[-1] // 2, 1))
        self.ups = [UpConvolution(channels, **dtype) for channels in after]
        shape = (None, *self.first_shape)
        for block, up, size in zip(
            self.blocks, self.ups, self.sizes, strict=True
        ):
            block.build(shape)
            up.build(shape)
            shape = (None, *size, up.channels)
        super().build(input_shape)

    def call(self, z):
        activate = keras.activations.get(self.activation)
        features = keras.ops.reshape(self.project(z), (-1, *self.first_shape))
        for block, up, size in zip(
            self.blocks, self.ups, self.sizes, strict=True
        ):
            features = up(activate(block(features)))
            features = features[:, : size[0], : size[1]]
        return activate(features)

    def get_config(self):
        return super().get_config() | {"image_shape": self.image_shape}


def mirrored_mlp(hidden_units=None, activation="relu") -> MLP:
    """The decoder's MLP: its default is the mirror of the encoder's."""
    return MLP(MIRRORED if hidden_units is None else hidden_units, activation)


def mirrored_gated(hidden_units=None) -> GatedMLP:
    """As `mirrored_mlp`, gated."""
    return GatedMLP(MIRRORED if hidden_units is None else hidden_units)


ENCODER_BODIES: dict[str, Callable] = {
    "mlp": MLP,
    "gated": GatedMLP,
    "conv": ConvEncoder,
}
DECODER_BODIES: dict[str, Callable] = {
    "mlp": mirrored_mlp,
    "gated": mirrored_gated,
    "conv": ConvDecoder,
}
