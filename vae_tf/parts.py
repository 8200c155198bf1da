"""What an encoder and a decoder are: a Keras model whose call gives a
distribution.
"""

import keras


class Checkpointed(keras.Model):
    """A model of which `tf.train.Checkpoint` saves every variable.

    TensorFlow follows attributes, and does not look into the lists in which
    Keras keeps an attribute's layers and variables.
    """

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        if save_type != "checkpoint":
            return children
        slots = getattr(self, "optimizer", None)
        variables = self.variables + (slots.variables if slots else [])
        return children | {
            f"variable-{number}": variable.value
            for number, variable in enumerate(variables)
        }


class Part(Checkpointed):
    """Base of the inference and of the generative network: called on a tensor,
    it gives a distribution; where Keras takes tensors alone, in `predict` and
    called on a symbolic `keras.Input`, what `tensors` makes of that.
    """

    def tensors(self, distribution):
        """What of the distribution `predict` gives."""
        raise NotImplementedError

    def __call__(self, inputs, *args, **kwargs):
        if isinstance(inputs, keras.KerasTensor):
            return AsTensors(self)(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def predict_step(self, data):
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.tensors(self(inputs))

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable("vae_tf")
class AsTensors(keras.layers.Layer):
    """A part in a functional model: the tensors that its `predict` gives.

    Args:
      part: an encoder or a decoder, built.
    """

    def __init__(self, part, **kwargs):
        super().__init__(**kwargs)
        self.part = part

    def call(self, inputs):
        return self.part.tensors(self.part(inputs))

    def get_config(self):
        part = keras.saving.serialize_keras_object(self.part)
        return super().get_config() | {"part": part}

    @classmethod
    def from_config(cls, config):
        part = keras.saving.deserialize_keras_object(config.pop("part"))
        return cls(part, **config)
