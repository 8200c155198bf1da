"""The variational autoencoder: a prior and a decoder (the model), an encoder
(the inference), an objective.
"""

import math
import warnings
import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import executions, objectives, refusals
from vae_tf.decoder import Decoder
from vae_tf.encoder import Encoder
from vae_tf.noise import standard_normal
from vae_tf.objectives import OBJECTIVES
from vae_tf.priors import PRIORS
from vae_tf.settings import UserError, choose

# Of the noise in `evaluate` and validation: the same at every epoch.
EVALUATION_SEED = 7
BOTH = ("inference", "generative")
# The networks that each update of a step moves.
TRAIN_VARIABLES = {
    "all": (BOTH,),
    "inference": (("inference",),),
    "generative": (("generative",),),
    "alternate": (("inference",), ("generative",)),
}
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
        self._seen: weakref.WeakSet = weakref.WeakSet()  # datasets looked at
        self._images_of = _images_of  # of a batch, in the compiled loop
        self.trackers = [
            keras.metrics.Mean(name=name) for name in self.objective.names
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
        """phi: the trainable variables of q(z|x)."""
        return self.encoder.trainable_variables

    @property
    def generative_variables(self) -> list[keras.Variable]:
        """theta: the trainable variables of p(x|z) and p(z)."""
        return self.decoder.trainable_variables + self.prior.trainable_variables

    @property
    def gradient_estimator(self) -> str:
        """The estimator in use: the objective's, with "auto" resolved."""
        return self.objective.estimator(self.encoder.one_pass_density)

    # The model, in words of probability.

    def elbo(self, images, seed: int, num_samples: int = 1) -> tf.Tensor:
        """A draw of the ELBO `[B]`, in nats, from `num_samples` draws of z for
        each image.

        Raises:
          UserError: the images are not what `check_images` expects.
        """
        images = self.check_images(images)
        noise = self._noise(images, [0, seed], num_samples)
        return self.elbo_terms(images, noise).elbo

    def elbo_terms(self, images: tf.Tensor, noise: tf.Tensor):
        """ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) and its terms, `[B]`,
        in nats, from noise `[K, B, D]` as `draws` takes it.
        """
        return objectives.elbo(self.draws(images, noise))

    def draws(
        self,
        images: tf.Tensor,
        noise: tf.Tensor,
        training: tuple[str, ...] = (),
        gradient_estimator: str = "plain",
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
        """
        posterior = self.encoder(images, training="inference" in training)
        generating = "generative" in training
        return objectives.draw(
            posterior,
            self.prior_distribution(),
            noise,
            lambda z: self.decoder(z, training=generating).log_prob(images),
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
        seeds = tf.random.experimental.stateless_split([0, seed], 2)
        z_seed, x_seed = tf.unstack(seeds)
        z = self.prior_distribution().sample(num_samples, seed=z_seed)
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
        """Sets what depends on the data before training: the likelihood's bias
        from the mean image, a VampPrior's pseudo-inputs from some images.

        Args:
          data: images `[N, H, W, C]` or a dataset of batches of them, as for
            `fit`.
          batch_size: of an array.
        """
        if not isinstance(data, tf.data.Dataset):
            images = self.check_images(data)
            data = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
        total, count = np.zeros(self.decoder.image_shape), 0
        generator = np.random.default_rng(self.seed)
        kept = np.zeros((0, *self.decoder.image_shape), np.float32)
        keys = np.zeros(0)
        for batch in data:
            images = _images_of(batch)
            if count == 0:
                self.check_images(images)
            images = images.numpy()
            total += np.sum(images, axis=0, dtype=np.float64)
            count += len(images)
            # A fair choice from a stream: the smallest of random keys.
            kept = np.concatenate([kept, images])
            keys = np.concatenate([keys, generator.random(len(images))])
            smallest = np.argsort(keys)[: self.prior.num_images]
            kept, keys = kept[smallest], keys[smallest]
        if count == 0:
            raise UserError(NO_IMAGES)
        self.decoder.likelihood.adapt(total / count, count)
        self.prior.adapt(kept)

    def train_step(self, data):
        images = _images_of(data)
        for networks in TRAIN_VARIABLES[self.train_variables]:
            # The noise of an update is a function of the seed and its number,
            # which the optimizer keeps: nothing else to remember.
            number = tf.cast(self.optimizer.iterations.value, tf.int32)
            noise = self._noise(
                images, [self.seed, number], self.objective.num_samples
            )
            with tf.GradientTape() as tape:
                draws = self.draws(
                    images, noise, networks, self.gradient_estimator
                )
                elbo = self.objective(draws, self.optimizer.iterations)
                # Bodies of the user's own may add losses, such as weight decay.
                loss = -elbo + sum(self.losses)
                minimize(loss, self.optimizer, self._variables(networks), tape)
        return self._track(draws)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        if not self.optimizer.built:
            # For every variable, where the first update moves some alone, and
            # here, because a compiled loop can make no variable.
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)
        if self._loops():
            self.train_function: Any = executions.compiled_loop(
                self, self._images_of, self.train_function
            )

    def _loops(self) -> bool:
        """Whether `fit` runs several steps in one compiled call."""
        several = self.jit_compile and self.steps_per_execution > 1
        return several and executions.suit_xla(self)

    def _resolve_auto_jit_compile(self):
        # Keras' own answer is no wherever there is no GPU.
        return executions.suit_xla(self) or super()._resolve_auto_jit_compile()

    def test_step(self, data):
        images = _images_of(data)
        # The number of images seen so far in this pass seeds each batch: fresh
        # noise in every batch, and the same again in the next pass, so that
        # epochs are compared on equal draws.
        seed = [EVALUATION_SEED, tf.cast(self.trackers[0].count, tf.int32)]
        noise = self._noise(images, seed, self.objective.num_samples)
        return self._track(self.draws(images, noise))

    def _variables(self, networks: tuple[str, ...]) -> list[keras.Variable]:
        """The trainable variables of the networks named."""
        variables = {
            "inference": self.inference_variables,
            "generative": self.generative_variables,
        }
        return sum((variables[name] for name in networks), [])

    def fit(self, x=None, *args, validation_data=None, **kwargs):
        """Keras' `fit`, after a look at the images (all of an array; the first
        batch of a dataset, unless an earlier call has looked at it).
        """
        for data in (x, validation_data):
            self._check_data(data)
        images_of = _images_of
        if isinstance(x, tf.data.Dataset):
            # A dataset shuffles itself; Keras warns at its own default.
            kwargs.setdefault("shuffle", False)
            in_step = getattr(x, "in_step", None)
            # Under a strategy, Keras cuts each batch into parts.
            cut = self._distribute_strategy or tf.distribute.has_strategy()
            if in_step and not cut and self._loops():
                x, images_of = in_step
        if images_of is not self._images_of:
            self._images_of, self.train_function = images_of, None
        return super().fit(x, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Keras' `evaluate`, after a look at the images as in `fit`; the same
        numbers at every call.
        """
        # Inside `fit`, which has looked already, Keras sets this.
        if not kwargs.get("_use_cached_eval_dataset"):
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
        self, images: tf.Tensor, seed, num_samples: int = 1
    ) -> tf.Tensor:
        """Standard-normal epsilon `[num_samples, B, D]`."""
        shape = (num_samples, tf.shape(images)[0], self.encoder.latent_dim)
        return standard_normal(shape, seed)

    def _track(self, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        bounds = self.objective.bounds(draws)
        for tracker in self.trackers:
            # [B], so that a short last batch weighs what it should
            tracker.update_state(bounds[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def _check_data(self, data) -> None:
        if isinstance(data, tf.data.Dataset):
            if data in self._seen:
                return  # Its first batch may cost more than a step of training.
            first = next(iter(data.take(1)), None)
            if first is None:
                raise UserError(NO_IMAGES)
            self.check_images(_images_of(first))
            self._seen.add(data)
        elif isinstance(data, (tuple, list, np.ndarray, tf.Tensor)):
            # Of anything else, such as a generator, only Keras may take.
            self.check_images(_images_of(data))


def _images_of(data) -> tf.Tensor:
    """The images of a batch that is images, or (images, labels)."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return tf.cast(images, tf.float32)
