"""The variational autoencoder: a prior and a decoder (the model), an encoder
(the inference), an objective.
"""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import executions, feeds, objectives, refusals
from vae_tf.decoder import Decoder
from vae_tf.encoder import Encoder
from vae_tf.feeds import Fed
from vae_tf.metrics import Negative, NonFinite
from vae_tf.noise import for_tfp, key, standard_normal
from vae_tf.objectives import OBJECTIVES
from vae_tf.priors import PRIORS
from vae_tf.settings import UserError, choose

BOTH = ("inference", "generative")
# The networks that each update of a step moves.
TRAIN_VARIABLES = {
    "all": (BOTH,),
    "inference": (("inference",),),
    "generative": (("generative",),),
    "alternate": (("inference",), ("generative",)),
}


def minimize(
    loss: tf.Tensor,
    optimizer: keras.Optimizer,
    variables: list,
    tape: tf.GradientTape,
    guard: NonFinite | None = None,
) -> None:
    """One step of gradient descent: theta <- theta - rho * d loss / d theta.

    Keras 3 optimizers have no `minimize` of their own. The scalar `loss` was
    recorded by `tape`, which is still recording: an optimizer that divides
    gradients by a scale first multiplies the loss with it. A `guard` leaves out
    what is no number.
    """
    scaled = optimizer.scale_loss(loss)
    with tape.stop_recording():
        gradients = tape.gradient(scaled, variables)
        if guard is not None:
            gradients = guard.passed(loss, gradients)
        optimizer.apply(gradients, variables)


def calls_of(optimizer: keras.Optimizer) -> tf.Tensor:
    """How often an optimizer was given gradients: `iterations`, but for one
    that accumulates several before each update.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return tf.convert_to_tensor(optimizer._iterations)


@keras.saving.register_keras_serializable("vae_tf")
class VAE(Fed):
    """A latent-variable model p(x, z) = p(x|z) p(z) and its inference network
    q(z|x), trained on the ELBO.

    Kingma and Welling 2013, arXiv:1312.6114; Rezende, Mohamed and Wierstra
    2014, arXiv:1401.4082.

    `fit` maximises the ELBO and shows `elbo`, `reconstruction` and `kl` in nats
    per image, and `loss`, minus the bound that it maximises. It takes images
    `[B, H, W, C]` in [0, 1] by any feed that Keras takes, with labels, which
    it ignores, or with targets of the images' shape, to which p(x|z) then
    gives probability. Called on images, the model returns their
    reconstruction, a tensor.

    Args:
      encoder: the inference network.
      decoder: the generative network.
      prior: family of p(z), a name of `PRIORS` or an instance.
      objective: what `fit` maximises, a name of `OBJECTIVES` or an instance
        such as `vae_tf.IWAE(num_samples=5)`.
      train_variables: "all"; "inference" (phi) or "generative" (theta) alone;
        "alternate", variational EM: each step updates phi, then theta.
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
        objective="elbo",
        train_variables: str = "all",
        seed: int = 0,
        **kwargs,
    ):
        refusals.check_keras()
        super().__init__(**kwargs)
        if train_variables not in TRAIN_VARIABLES:
            raise UserError(
                "train_variables: expected one of "
                f"{', '.join(TRAIN_VARIABLES)}, received {train_variables!r}."
            )
        self.encoder = encoder
        self.decoder = decoder
        self.prior = choose(
            "prior", prior, PRIORS, latent_dim=encoder.latent_dim
        )
        self.objective = choose("objective", objective, OBJECTIVES)
        self.train_variables = train_variables
        self.seed = seed
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in self.objective.names
        }
        self.loss_of = Negative(self.trackers[self.objective.bound])
        self.expect(decoder.image_shape, decoder.likelihood.support, base=VAE)
        if encoder.latent_dim >= math.prod(decoder.image_shape):
            warnings.warn(
                f"latent_dim: {encoder.latent_dim} is no bottleneck for images "
                f"of {math.prod(decoder.image_shape)} pixels.",
                stacklevel=2,
            )
        self.build((None, *decoder.image_shape))
        self(encoder.examples(1))  # as Keras' export wants it

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
        if not self.prior.built:
            self.prior.build(self.decoder.image_shape)
        refusals.check_parts(
            self.encoder,
            self.decoder,
            self.prior,
            self.objective,
            self.train_variables,
        )
        super().build(input_shape)

    @property
    def inference_variables(self) -> list[keras.Variable]:
        """The trainable variables of q(z|x), phi."""
        return self.encoder.trainable_variables

    @property
    def generative_variables(self) -> list[keras.Variable]:
        """The trainable variables of p(x|z) and p(z), theta."""
        return self.decoder.trainable_variables + self.prior.trainable_variables

    @property
    def gradient_estimator(self) -> str:
        """The estimator in use, the objective's with "auto" resolved."""
        one_pass = self.encoder.one_pass_density
        return self.objective.estimator(one_pass, self.prior.uses_encoder)

    # The model, in words of probability.

    def elbo(
        self, images, seed: int, num_samples: int = 1, targets=None
    ) -> tf.Tensor:
        """A draw of the ELBO `[B]`, in nats, from `num_samples` draws of z for
        each image; with `targets`, that of E_q(z|images)[log p(targets|z)].

        Raises:
          UserError: the images are not what `check_images` expects.
        """
        if targets is None:
            images = self.check_images(images)
        else:
            images = refusals.check_images(
                images, self.decoder.image_shape, "interval"
            )
            targets = self.check_images(targets)
        place = executions.place_of(images)
        noise = self._noise(key("elbo", seed), place, num_samples)
        return self.elbo_terms(images, noise, targets).elbo

    def elbo_terms(self, images: tf.Tensor, noise: tf.Tensor, targets=None):
        """ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) and its terms, `[B]`,
        in nats, from noise `[K, B, D]` and targets as `draws` takes them.
        """
        return objectives.elbo(self.draws(images, noise, targets=targets))

    def draws(
        self,
        images: tf.Tensor,
        noise: tf.Tensor,
        training: tuple[str, ...] = (),
        gradient_estimator: str = "plain",
        targets: tf.Tensor | None = None,
    ) -> objectives.Draws:
        """z ~ q(z|x) and log q(z|x), log p(z), log p(x|z), of which every bound
        is made.

        Args:
          images: x `[B, H, W, C]`.
          noise: standard-normal epsilon `[K, B, D]`; the same noise gives the
            same draws.
          training: networks, "inference" or "generative", whose layers such as
            dropout behave as in training.
          gradient_estimator: see `objectives.draw`.
          targets: what p(x|z) gives probability to, where that is not the
            images: with noisy images, the denoising criterion (Im et al. 2015,
            arXiv:1511.06406).
        """
        return self.draws_from(
            self.encoder(images, training="inference" in training),
            images if targets is None else targets,
            noise,
            training,
            gradient_estimator,
        )

    def draws_from(
        self,
        posterior: tfd.Distribution,
        targets: tf.Tensor,
        noise: tf.Tensor,
        training: tuple[str, ...] = (),
        gradient_estimator: str = "plain",
    ) -> objectives.Draws:
        """`draws` of a q(z|x) from anywhere, batch `[B]`, event `[D]`."""
        generating = "generative" in training
        return objectives.draw(
            posterior,
            self.prior_distribution(),
            noise,
            lambda z: self.decoder(z, training=generating).log_prob(targets),
            gradient_estimator,
        )

    def prior_distribution(self) -> tfd.Distribution:
        """p(z), batch `[]`, event `[D]`."""
        return self.prior.distribution(self.encoder)

    def log_joint(self, images, z) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z) `[..., B]`, in nats, for z `[...,
        B, D]`.
        """
        images = self.check_images(images)
        log_likelihood = self.decoder(z).log_prob(images)
        return log_likelihood + self.prior_distribution().log_prob(z)

    def sample(self, num_samples: int, seed: int) -> tf.Tensor:
        """Draws from p(x) `[num_samples, H, W, C]`, by ancestral sampling: z ~
        p(z), then x ~ p(x|z).
        """
        _, images = self.sample_joint(num_samples, seed)
        return images

    def sample_joint(
        self, num_samples: int, seed: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The draws of `sample`, each after the z `[num_samples, D]` that it
        was drawn from: z is a draw from p(z|x).
        """
        z_seed, x_seed = (
            for_tfp(key(purpose, seed)) for purpose in ("latent", "image")
        )
        z = self.prior_distribution().sample(num_samples, seed=z_seed)
        return z, self.decoder(z).sample(seed=x_seed)

    def reconstruct(self, images) -> tf.Tensor:
        """The mean of p(x|z) at the mean of q(z|x): `[B, H, W, C]` in [0, 1],
        the same at every call.
        """
        return self(self.check_images(images))

    def call(self, images):
        """The mean of p(x|z) at the mean of q(z|x), `[B, H, W, C]`: a tensor,
        because Keras' `predict` and symbolic calls take nothing else.
        """
        return self.decoder(self.encoder(images).mean()).mean()

    # The same model, as Keras trains it.

    def adapt(self, data, batch_size: int = 128) -> None:
        """Sets what depends on the data before training: the likelihood's bias
        from the mean image, a VampPrior's pseudo-inputs from some images.

        Args:
          data: images `[N, H, W, C]` or a dataset of batches of them, as for
            `fit`.
          batch_size: of an array.
        """
        data = feeds.batches_that_end(data, batch_size)
        total, count = np.zeros(self.decoder.image_shape), 0
        generator = np.random.default_rng(self.seed)
        kept = np.zeros((0, *self.decoder.image_shape), np.float32)
        keys = np.zeros(0)
        for batch in data:
            _, targets = feeds.unpacked(batch, self.decoder.image_shape)
            images = self.check_images(targets).numpy()
            total += np.sum(images, axis=0, dtype=np.float64)
            count += len(images)
            # A fair choice from a stream: the smallest of random keys.
            kept = np.concatenate([kept, images])
            keys = np.concatenate([keys, generator.random(len(images))])
            smallest = np.argsort(keys)[: self.prior.num_images]
            kept, keys = kept[smallest], keys[smallest]
        if count == 0:
            raise UserError(refusals.NO_IMAGES)
        self.decoder.likelihood.adapt(total / count, count)
        self.prior.adapt(kept)

    def train_step(self, data):
        """An update of phi and theta by `minimize(-elbo)`, from a batch."""
        images, targets = feeds.unpacked(data, self.decoder.image_shape)
        place = executions.place_of(images)
        for networks in TRAIN_VARIABLES[self.train_variables]:
            # The noise of an update is a function of the seed and its number,
            # which the optimizer keeps: nothing else to remember.
            noise = self._noise(
                key("training", self.seed, calls_of(self.optimizer)),
                place,
                self.objective.num_samples,
            )
            with tf.GradientTape() as tape:
                draws = self.draws(
                    images, noise, networks, self.gradient_estimator, targets
                )
                elbo = self.objective(
                    draws, self.optimizer.iterations, place.everywhere
                )
                # Bodies of the user's own may add losses, such as weight decay.
                loss = -elbo * place.share + sum(self.losses) / place.devices
                variables = self._variables(networks)
                minimize(loss, self.optimizer, variables, tape, self.guard)
        if not executions.images_are_made():
            self.refused.update_state(targets)
        return self._track(draws, loss)

    def test_step(self, data):
        """The ELBO and its terms of a batch, on the same draws in each pass."""
        images, targets = feeds.unpacked(data, self.decoder.image_shape)
        # The number of images seen so far in this pass is that of each batch:
        # fresh noise in each, and the same again in the next pass.
        place = executions.place_of(images)
        seen = place.seen(self.trackers[self.objective.bound].count)
        noise = self._noise(
            key("validation", 0, seen), place, self.objective.num_samples
        )
        if not executions.images_are_made():
            self.refused.update_state(targets)
        return self._track(self.draws(images, noise, targets=targets))

    def _variables(self, networks: tuple[str, ...]) -> list[keras.Variable]:
        """The trainable variables of the networks named."""
        variables = {
            "inference": self.inference_variables,
            "generative": self.generative_variables,
        }
        return sum((variables[name] for name in networks), [])

    def check_images(self, images) -> tf.Tensor:
        """The images as float32.

        Raises:
          UserError: they are not `[B, H, W, C]` of the model's shape, or (where
            values are known: not inside a graph) hold NaN, lie outside [0, 1],
            or have no probability under the likelihood.
        """
        return refusals.check_images(
            images, self.decoder.image_shape, self.decoder.likelihood.support
        )

    def get_config(self):
        return super().get_config() | {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "prior": keras.saving.serialize_keras_object(self.prior),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "train_variables": self.train_variables,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))

    def _noise(
        self, key: tf.Tensor, place: executions.Place, num_samples: int
    ) -> tf.Tensor:
        """Standard-normal epsilon `[num_samples, B, D]` of the images of a
        place.
        """
        shape = (num_samples, place.total, self.encoder.latent_dim)
        return place.of(standard_normal(shape, key), axis=1)

    def _track(self, draws: objectives.Draws, loss=None) -> dict:
        bounds, weights = self.objective.bounds(draws), None
        if loss is not None and self.guard is not None:
            terms = bounds["reconstruction"], bounds["kl"]
            self.guard.update_state(loss, terms)
            fine = tf.math.is_finite(loss)
            bounds = {k: tf.where(fine, v, 0.0) for k, v in bounds.items()}
            weights = tf.cast(fine, tf.float32) * tf.ones_like(terms[0])
        for name, tracker in self.trackers.items():
            # [B], so that a short last batch weighs what it should
            tracker.update_state(bounds[name], weights)
        logs = {name: one.result() for name, one in self.trackers.items()}
        return executions.logs({"loss": self.loss_of.result()} | logs)
