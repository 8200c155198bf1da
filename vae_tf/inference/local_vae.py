"""A VAE without an encoder: its decoder is trained with a table of q(z|x_i),
variational EM with local parameters."""

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import executions, feeds, objectives
from vae_tf.inference.table import PosteriorTable, Rows, as_numbers
from vae_tf.noise import key
from vae_tf.settings import UserError
from vae_tf.vae import VAE, calls_of, minimize

# A row is visited once in an epoch, theta updated once in a step: the steps of
# rows are so many times as large, in the units of `Rows.moved`.
RATE = 100.0
HELD_OUT_UPDATES = 5  # of the rows of a validation batch, in each pass


@keras.saving.register_keras_serializable("vae_tf")
class LocalVAE(VAE):
    """A latent-variable model p(x, z) = p(x|z) p(z) and, for each training
    image, a q(z|x_i) with parameters of its own, trained on the ELBO.

    Amortized inference (a `VAE`) shares the parameters of an encoder among all
    images, mean-field inference shares none: Blei, Kucukelbir and McAuliffe
    2017, arXiv:1601.00670, section 2.3. A step moves theta and the rows of its
    own images, and nothing of other rows. A new image has no row:
    `vae_tf.infer` finds a posterior for it, with theta held.

    `fit` takes batches of dicts with `image` `[B, H, W, C]` and `row`, numbers
    `[B]`, all different, that are always the same for the same image:
    `load_data(numbered=True)` gives them. Validation images have rows in a
    table of their own, of which theta learns nothing: each pass over them moves
    their rows a few times, from where they were and with theta held, and
    measures the bound after that. It is a lower bound of log p(x) of images
    that theta never saw, and rises with further passes, by `evaluate` too.

    Args:
      encoder: the table of the training images.
      decoder, prior, objective, seed: as of `VAE`.
      held_out: a table of the validation images, made with `trainable=False`;
        None where there are none.

    Raises:
      UserError: as of `VAE`; or the prior is made of an encoder, or only a part
        of the variables is to be trained.
    """

    def __init__(
        self,
        encoder: PosteriorTable,
        decoder,
        prior="standard_normal",
        objective="elbo",
        held_out: PosteriorTable | None = None,
        **kwargs,
    ):
        self.held_out = held_out
        super().__init__(encoder, decoder, prior, objective, **kwargs)

    def build(self, input_shape):
        if self.held_out is not None and not self.held_out.built:
            self.held_out.build(input_shape)
        super().build(input_shape)
        for name, found, expected in (
            ("prior", self.prior.uses_encoder, "one that needs no encoder"),
            ("train_variables", self.train_variables != "all", "all"),
        ):
            if found:
                raise UserError(
                    f"{name}: expected {expected} with a table of q(z|x) for "
                    "each image in the place of an encoder, received "
                    f"{getattr(self, name)!r}."
                )

    @property
    def optimized_variables(self) -> list[keras.Variable]:
        """Of theta alone: a row keeps its own."""
        return self.generative_variables

    def __call__(self, rows, *args, **kwargs):
        """Reconstructions `[B, H, W, C]` of the training images of these
        numbers `[B]`; raises UserError for images, which have none.
        """
        return super().__call__(as_numbers(rows), *args, **kwargs)

    def train_step(self, data):
        images, numbers = self._numbered(data)
        rows, rate = self.encoder.rows(numbers), self._rate()
        place = executions.place_of(images)
        if place.devices > 1:
            raise UserError(
                "strategy: expected one device with a table of q(z|x), whose "
                f"rows have one place, received {place.devices}."
            )
        noise = self._noise(
            key("training", self.seed, calls_of(self.optimizer)),
            place,
            self.objective.num_samples,
        )
        with tf.GradientTape(persistent=True) as tape:
            step = tf.zeros_like(rows.mean)
            tape.watch(step)
            draws = self._draws_of(
                rows.moved(step).posterior, images, noise, ("generative",)
            )
            elbo = self.objective(draws, self.optimizer.iterations)
            loss = -elbo + sum(self.losses)
            minimize(loss, self.optimizer, self.generative_variables, tape)
        # Of each image's own bound, whatever the size of its batch.
        count = tf.cast(tf.shape(numbers)[0], tf.float32)
        slope = count * tape.gradient(elbo, step)
        self.encoder.assign(numbers, rows.updated(slope, rate))
        if self._in_step is None:
            self.refused.update_state(images)
        return self._track(draws)

    def test_step(self, data):
        images, numbers = self._numbered(data)
        if self.held_out is None:
            raise UserError(
                "held_out: expected a table of the validation images, received "
                "None (PosteriorTable(latent_dim, count, trainable=False))."
            )
        rows = self._refined(self.held_out.rows(numbers), images)
        self.held_out.assign(numbers, rows)
        noise = self._noise(
            key("validation", 0, self._seen_so_far),
            executions.place_of(images),
            self.objective.num_samples,
        )
        self.refused.update_state(images)
        return self._track(self._draws_of(rows.posterior, images, noise))

    def _refined(self, rows: Rows, images: tf.Tensor) -> Rows:
        """Rows after a few updates with theta held."""
        rate, place = self._rate(), executions.place_of(images)
        # Of the pass, and below it of the images and of the update.
        number = tf.cast(calls_of(self.optimizer), tf.int64) * 2**32
        number += tf.cast(self._seen_so_far, tf.int64) * HELD_OUT_UPDATES

        def update(done, rows):
            noise = self._noise(
                key("held out", self.seed, number + done),
                place,
                self.objective.num_samples,
            )
            # TFP keeps what it made of a tensor, in a loop too, for use after.
            own = tf.identity(images)
            with tf.GradientTape() as tape:
                step = tf.zeros_like(rows.mean)
                tape.watch(step)
                draws = self._draws_of(rows.moved(step).posterior, own, noise)
                bound = self.objective.bounds(draws)[self.objective.bound]
            return done + 1, rows.updated(tape.gradient(bound, step), rate)

        _, rows = tf.while_loop(
            lambda done, _: done < HELD_OUT_UPDATES,
            update,
            (tf.constant(0, tf.int64), rows),
        )
        return rows

    @property
    def _seen_so_far(self) -> tf.Tensor:
        """Images of this pass before this batch."""
        return self.trackers[self.objective.bound].count

    def _rate(self) -> tf.Tensor:
        """The step size of rows, which follows the course of theta's."""
        return RATE * self.optimizer.learning_rate

    def _draws_of(
        self,
        posterior: tfd.Distribution,
        images: tf.Tensor,
        noise: tf.Tensor,
        training: tuple[str, ...] = (),
    ) -> objectives.Draws:
        """`draws` of a given q(z|x), by the estimator in use."""
        generating = "generative" in training
        return objectives.draw(
            posterior,
            self.prior_distribution(),
            noise,
            lambda z: self.decoder(z, training=generating).log_prob(images),
            self.gradient_estimator,
        )

    def _numbered(self, data) -> tuple[tf.Tensor, tf.Tensor]:
        """The images of a batch, and the numbers of their rows."""
        images, _ = feeds.unpacked(data, self.decoder.image_shape)
        given, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(given, dict) or "row" not in given:
            raise UserError(
                "data: expected dicts with 'image' and 'row', the number of "
                "each image in the table of q(z|x) (vae_tf.load_data with "
                "numbered=True gives them for train and validation), received "
                "none with 'row'; an image that is in no table gets its "
                "posterior of vae_tf.infer."
            )
        return images, given["row"]

    def get_config(self):
        return super().get_config() | {
            "held_out": keras.saving.serialize_keras_object(self.held_out),
        }
