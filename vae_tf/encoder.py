"""The inference network: image -> q(z|x)."""

import keras
from tensorflow_probability import distributions as tfd

from vae_tf.networks import ENCODER_BODIES
from vae_tf.parts import Part
from vae_tf.posteriors import POSTERIORS
from vae_tf.settings import UserError, choose

ROWS = 3  # with which a part is built and looked at


@keras.saving.register_keras_serializable("vae_tf")
class Encoder(Part):
    """q(z|x) with parameters phi: a body that reads the image, and a posterior
    head.

    In neural-network language, the encoder that maps an image to its
    (stochastic) code.

    >>> posterior = Encoder(latent_dim=2)(images)  # [B, H, W, C]
    >>> posterior.batch_shape, posterior.event_shape  # [B], [D]
    (TensorShape([4]), TensorShape([2]))

    Args:
      latent_dim: D, the dimension of z.
      posterior: family of q(z|x), a name of `POSTERIORS` or an instance of a
        head.
      network: body, a name of `ENCODER_BODIES` or any Keras layer or model `[B,
        H, W, C] -> [B, F]`.
      hidden_units: widths of a named body's layers, or channels of its stages;
        None is the body's own default.
      activation: nonlinearity of a named body.

    Returns:
      A `tfd.Distribution`, batch `[B]`, event `[D]`. `predict`, and a call on
        a `keras.Input`, give its mean and standard deviation, `[B, D]` each.

    Raises:
      UserError: a name is unknown, the images differ in shape from those it
        was built for, or a body or head of the user's own does not give one
        distribution for each image.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        posterior="mean_field",
        network="mlp",
        hidden_units=None,
        activation="relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if type(latent_dim) is not int or latent_dim < 1:
            raise UserError(
                "latent_dim: expected an integer >= 1, received "
                f"{latent_dim!r}."
            )
        self.latent_dim = latent_dim
        self.network = choose(
            "network",
            network,
            ENCODER_BODIES,
            hidden_units=hidden_units,
            activation=activation,
        )
        self.posterior = choose(
            "posterior", posterior, POSTERIORS, latent_dim=latent_dim
        )

    def build(self, input_shape):
        self.image_shape = tuple(input_shape[1:])
        # Builds parts of any kind; rows enough to be told from each other.
        posterior = self.posterior(self.network(self.examples(ROWS)))
        if tuple(posterior.batch_shape) != (ROWS,):
            raise UserError(
                f"network, posterior: expected one q(z|x) for each of {ROWS} "
                f"images, batch shape [{ROWS}], received batch shape "
                f"{list(posterior.batch_shape)} (a body that ends in an image "
                "or a sequence needs a Flatten or a pooling layer)."
            )
        # What a head of the user's own leaves unsaid, its distribution says.
        self.factorizes = getattr(
            self.posterior,
            "factorizes",
            isinstance(posterior, tfd.MultivariateNormalDiag),
        )
        self.one_pass_density = getattr(
            self.posterior,
            "one_pass_density",
            isinstance(posterior, tfd.MultivariateNormalLinearOperator),
        )
        super().build(input_shape)

    def examples(self, count: int):
        """Inputs of which it makes a posterior: images without content."""
        return keras.ops.zeros((count, *self.image_shape))

    def call(self, images) -> tfd.Distribution:
        """Images `[B, H, W, C]` -> q(z|x), batch `[B]`, event `[D]`."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise UserError(
                f"images: expected shape {('B', *self.image_shape)}, received "
                f"{tuple(images.shape)}."
            )
        return self.posterior(self.network(images))

    def tensors(self, distribution):
        """Mean and standard deviation of q(z|x), `[B, D]` each."""
        return distribution.mean(), distribution.stddev()

    def get_config(self):
        return super().get_config() | {
            "latent_dim": self.latent_dim,
            "posterior": keras.saving.serialize_keras_object(self.posterior),
            "network": keras.saving.serialize_keras_object(self.network),
        }
