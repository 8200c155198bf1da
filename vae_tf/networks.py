"""Bodies of the encoder (image -> features) and of the decoder (latent ->
features).
"""

import math

import keras


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

    def __init__(self, hidden_units=(400, 256), activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        # He et al. 2015, arXiv:1502.01852: a signal that keeps its size through
        # the layers, or a deep network prunes latents before it uses them.
        self.hidden = [
            keras.layers.Dense(
                units, activation, kernel_initializer="he_normal"
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


ENCODER_BODIES = {"mlp": MLP}
DECODER_BODIES = {"mlp": MLP}
