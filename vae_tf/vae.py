"""The variational autoencoder: a prior and a decoder (the model), an encoder
(the inference), an objective.
"""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import objectives
from vae_tf.config import GREY_VALUES, UserError, choose
from vae_tf.decoder import Decoder
from vae_tf.encoder import Encoder
from vae_tf.priors import PRIORS

# Of the noise in `evaluate` and validation: the same at every epoch.
EVALUATION_SEED = 7
NO_IMAGES = "data: expected at least one batch of images, received none."


def minimize(
    loss: tf.Tensor,
    optimizer: keras.Optimizer,
    variables: list,
    tape: tf.GradientTape,
) -> None:
    """One step of gradient descent: theta <- theta - rho * d loss / d theta.

    Keras 3 optimizers have no `minimize` of their own. The scalar `loss` was
    recorded by `tape`.
    """
    with tape.stop_recording():
        optimizer.apply(tape.gradient(loss, variables), variables)


@keras.saving.register_keras_serializable("vae_tf")
class VAE(keras.Model):
    """A latent-variable model p(x, z) = p(x|z) p(z) and its inference network
    q(z|x), trained on the ELBO.

    Kingma and Welling 2013, arXiv:1312.6114; Rezende, Mohamed and Wierstra
    2014, arXiv:1401.4082.

    `fit` maximises the ELBO and shows `elbo`, `reconstruction` and `kl` in nats
    per image. It takes arrays or `tf.data.Dataset`s of images `[B, H, W, C]` in
    [0, 1], or datasets of (image, label), whose labels it ignores. Called on
    images, the model returns their reconstruction, a tensor.

    Args:
      encoder: the inference network.
      decoder: the generative network.
      prior: family of p(z), a name of `PRIORS` or an instance.
      seed: of the training noise.

    Raises:
      UserError: a name is unknown, the parts do not fit each other, or q(z|x)
        is not reparameterised.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        prior="standard_normal",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.prior = choose(
            "prior", prior, PRIORS, latent_dim=encoder.latent_dim
        )
        self.seed = seed
        self.noise_seeds = keras.random.SeedGenerator(seed)
        self.trackers = [
            keras.metrics.Mean(name=name) for name in objectives.ELBO._fields
        ]
        if encoder.latent_dim >= math.prod(decoder.image_shape):
            warnings.warn(
                f"latent_dim: {encoder.latent_dim} is no bottleneck for images "
                f"of {math.prod(decoder.image_shape)} pixels.",
                stacklevel=2,
            )
        self.build((None, *decoder.image_shape))

    def build(self, input_shape):
        """Makes all weights: those of the parts, which `train_step` calls one
        by one.
        """
        if not self.encoder.built:
            self.encoder.build(input_shape)
        if self.encoder.image_shape != self.decoder.image_shape:
            raise UserError(
                "decoder: expected the encoder's image shape "
                f"{self.encoder.image_shape}, "
                f"received {self.decoder.image_shape}."
            )
        if not self.decoder.built:
            self.decoder.build((None, self.encoder.latent_dim))
        self.prior.build(None)
        self._check_parts()
        super().build(input_shape)

    @property
    def inference_variables(self) -> list[keras.Variable]:
        """phi: the trainable variables of q(z|x)."""
        return self.encoder.trainable_variables

    @property
    def generative_variables(self) -> list[keras.Variable]:
        """theta: the trainable variables of p(x|z) and p(z)."""
        return self.decoder.trainable_variables + self.prior.trainable_variables

    # The model, in words of probability.

    def elbo(self, images, seed: int, num_samples: int = 1) -> tf.Tensor:
        """A draw of the ELBO `[B]`, in nats, from `num_samples` draws of z for
        each image.

        Raises:
          UserError: the images are not what `check_images` expects.
        """
        images = self.check_images(images)
        return self.elbo_terms(
            images, self._noise(images, [0, seed], num_samples)
        ).elbo

    def elbo_terms(
        self, images: tf.Tensor, noise: tf.Tensor, training: bool = False
    ) -> objectives.ELBO:
        """ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) and its terms, `[B]`,
        in nats.

        Args:
          images: x `[B, H, W, C]`.
          noise: standard-normal epsilon `[K, B, D]`; the same noise gives the
            same bound.
          training: whether layers such as dropout behave as in training.
        """
        posterior = self.encoder(images, training=training)  # q(z|x)
        z = objectives.reparameterize(posterior, noise)  # [K, B, D]
        likelihood = self.decoder(z, training=training)  # p(x|z)
        prior = self.prior.distribution()  # p(z)
        return objectives.elbo(images, z, posterior, likelihood, prior)

    def log_joint(self, images, z) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z) `[..., B]`, in nats, for z `[...,
        B, D]`.
        """
        images = self.check_images(images)
        return self.decoder(z).log_prob(
            images
        ) + self.prior.distribution().log_prob(z)

    def sample(self, num_samples: int, seed: int) -> tf.Tensor:
        """Draws from p(x) `[num_samples, H, W, C]`, by ancestral sampling: z ~
        p(z), then x ~ p(x|z).
        """
        z_seed, x_seed = tf.unstack(
            tf.random.experimental.stateless_split([0, seed], 2)
        )
        z = self.prior.distribution().sample(num_samples, seed=z_seed)
        return self.decoder(z).sample(seed=x_seed)

    def reconstruct(self, images) -> tf.Tensor:
        """The mean of p(x|z) at the mean of q(z|x): `[B, H, W, C]` in [0, 1],
        the same at every call.
        """
        return self(self.check_images(images))

    def call(self, images):
        # A tensor, not a distribution, because Keras' `predict` and symbolic
        # calls take nothing else.
        return self.decoder(self.encoder(images).mean()).mean()

    # The same model, as Keras trains it.

    def adapt(self, data, batch_size: int = 128) -> None:
        """Sets what depends on the data before training: the likelihood head's
        bias from the mean image.

        Args:
          data: images `[N, H, W, C]` or a dataset of batches of them, as for
            `fit`.
          batch_size: of an array.
        """
        if not isinstance(data, tf.data.Dataset):
            data = tf.data.Dataset.from_tensor_slices(
                self.check_images(data)
            ).batch(batch_size)
        total, count = np.zeros(self.decoder.image_shape), 0
        for batch in data:
            images = _images_of(batch)
            if count == 0:
                self.check_images(images)
            total += np.sum(images, axis=0, dtype=np.float64)
            count += images.shape[0]
        if count == 0:
            raise UserError(NO_IMAGES)
        self.decoder.likelihood.adapt(total / count, count)

    def train_step(self, data):
        images = _images_of(data)
        noise = self._noise(images, self.noise_seeds.next())
        with tf.GradientTape() as tape:
            terms = self.elbo_terms(images, noise, training=True)
            elbo = tf.reduce_mean(terms.elbo)
            minimize(-elbo, self.optimizer, self.trainable_variables, tape)
        return self._track(terms)

    def test_step(self, data):
        images = _images_of(data)
        # The number of images seen so far in this pass seeds each batch: fresh
        # noise in every batch, and the same again in the next pass, so that
        # epochs are compared on equal draws.
        seed = [EVALUATION_SEED, tf.cast(self.trackers[0].count, tf.int32)]
        return self._track(self.elbo_terms(images, self._noise(images, seed)))

    def fit(self, x=None, *args, validation_data=None, **kwargs):
        """Keras' `fit`, after a look at the images (all of an array, the first
        batch of a dataset).
        """
        for data in (x, validation_data):
            self._check_data(data)
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault(
                "shuffle", False
            )  # A dataset shuffles itself; Keras warns at its own default.
        return super().fit(x, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Keras' `evaluate`, after a look at the images as in `fit`; the same
        numbers at every call.
        """
        if not kwargs.get(
            "_use_cached_eval_dataset"
        ):  # Inside `fit`, which has looked already.
            self._check_data(x)
        return super().evaluate(x, *args, **kwargs)

    @property
    def metrics(self):
        return self.trackers

    def check_images(self, images) -> tf.Tensor:
        """The images as float32.

        Raises:
          UserError: they are not `[B, H, W, C]` of the model's shape, or (where
            values are known: not inside a graph) hold NaN, lie outside [0, 1],
            or have no probability under the likelihood.
        """
        images = tf.cast(images, tf.float32)
        expected = ("B", *self.decoder.image_shape)
        if tuple(images.shape[1:]) != self.decoder.image_shape:
            raise UserError(
                f"images: expected shape {expected}, received "
                f"{tuple(images.shape)}."
            )
        if not tf.executing_eagerly():
            return images
        values = images.numpy()
        if not np.all((values >= 0) & (values <= 1)):  # NaN compares false
            raise UserError(
                "images: expected values in [0, 1], received values from "
                f"{values.min()} to {values.max()}."
            )
        if self.decoder.likelihood.support == "binary" and not np.all(
            (values == 0) | (values == 1)
        ):
            raise UserError(
                "images: expected pixels 0 or 1, received grey values: "
                f"{GREY_VALUES}. Binarise them, as vae_tf.load_data does."
            )
        return images

    def save_own_variables(self, store):
        # Keras saves weights but not where a SeedGenerator stands.
        store["noise_seeds"] = np.asarray(self.noise_seeds.state)

    def load_own_variables(self, store):
        self.noise_seeds.state.assign(store["noise_seeds"][()])

    def get_config(self):
        return super().get_config() | {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "prior": keras.saving.serialize_keras_object(self.prior),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))

    def _noise(
        self, images: tf.Tensor, seed, num_samples: int = 1
    ) -> tf.Tensor:
        """Standard-normal epsilon `[num_samples, B, D]`."""
        shape = (num_samples, tf.shape(images)[0], self.encoder.latent_dim)
        return tf.random.stateless_normal(shape, tf.cast(seed, tf.int32))

    def _track(self, terms: objectives.ELBO) -> dict[str, tf.Tensor]:
        for tracker, term in zip(self.trackers, terms, strict=True):
            tracker.update_state(
                term
            )  # [B], so that a short last batch weighs what it should
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def _check_data(self, data) -> None:
        if isinstance(data, tf.data.Dataset):
            data = next(iter(data.take(1)), None)
            if data is None:
                raise UserError(NO_IMAGES)
        if isinstance(data, (tuple, list, np.ndarray, tf.Tensor)):
            # Of anything else, such as a generator, only Keras may take.
            self.check_images(_images_of(data))

    def _check_parts(self) -> None:
        """Raises UserError unless the parts are what `elbo_terms` relies on."""
        latent, image = (self.encoder.latent_dim,), self.decoder.image_shape
        posterior = self.encoder(tf.zeros((1, *image)))
        if not (
            isinstance(posterior, tfd.TransformedDistribution)
            and posterior.reparameterization_type == tfd.FULLY_REPARAMETERIZED
            and _is_standard_normal(posterior.distribution, *latent)
        ):
            raise UserError(
                "posterior: expected a reparameterised q(z|x), a "
                "tfd.TransformedDistribution of standard-normal "
                "noise such as tfd.MultivariateNormalDiag, received "
                f"tfd.{type(posterior).__name__}."
            )
        for name, found, expected in (
            ("posterior", posterior, latent),
            ("prior", self.prior.distribution(), latent),
            ("likelihood", self.decoder(tf.zeros((1, *latent))), image),
        ):
            if tuple(found.event_shape) != expected:
                raise UserError(
                    f"{name}: expected a distribution with event shape "
                    f"{expected}, received {tuple(found.event_shape)}."
                )


def _is_standard_normal(base: tfd.Distribution, latent_dim: int) -> bool:
    """Whether noise from N(0, I) is what a posterior's base draws."""
    noise = np.linspace(-1.5, 2.0, latent_dim, dtype=np.float32)
    expected = -0.5 * np.sum(noise**2 + math.log(2 * math.pi))
    return np.allclose(base.log_prob(noise), expected, 1e-4)


def _images_of(data) -> tf.Tensor:
    """The images of a batch that is images, or (images, labels)."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return tf.cast(images, tf.float32)
