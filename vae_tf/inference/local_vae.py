"""A VAE without an encoder: its decoder is trained with a table of q(z|x_i),
variational EM with local parameters."""

from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_tf import executions, feeds
from vae_tf.decoder import Decoder
from vae_tf.inference.table import PosteriorTable, Rows, as_numbers
from vae_tf.noise import key
from vae_tf.objectives import Draws, elbo
from vae_tf.settings import UserError
from vae_tf.vae import VAE, calls_of, minimize

# A row is visited once in an epoch, theta updated once in a step: its steps are
# more and larger, so many times theta's step size in the units of `Rows.moved`.
# Steps of half a standard deviation would lead away again and again.
RATE, LARGEST = 100.0, 0.2
UPDATES = 6  # of the rows of a batch, in each step
# Before, it looks at the places of so many others, and goes where it gains as
# many nats.
PLACES, LEAP = 16, 1.0
HELD_OUT_UPDATES = 5  # and of a validation batch, in each pass


@keras.saving.register_keras_serializable("vae_tf")
class LocalVAE(VAE):
    """A latent-variable model p(x, z) = p(x|z) p(z) and, for each training
    image, a q(z|x_i) with parameters of its own, trained on the ELBO.

    Amortized inference (a `VAE`) shares the parameters of an encoder among all
    images, mean-field inference shares none: Blei, Kucukelbir and McAuliffe
    2017, arXiv:1601.00670, section 2.3. A step is one of variational EM: the
    rows of its images are moved with theta held, then theta with the rows, and
    nothing of other rows is touched. A new image has no row: `vae_tf.infer`
    finds a posterior for it, with theta held.

    `fit` takes batches of dicts with `image` `[B, H, W, C]` and `row`, numbers
    `[B]`, all different, that are always the same for the same image:
    `load_data(numbered=True)` gives them. Validation images have rows in a
    table of their own, of which theta learns nothing: each pass over them moves
    their rows a few times, from where they were and with theta held, and
    measures the bound after that. It is a lower bound of log p(x) of images
    that theta never saw, and rises with further passes, by `evaluate` too.

    Args:
      encoder: the table of the training images.
      decoder: as of `VAE`.
      held_out: the table of the validation images, made with `trainable=False`.
      **kwargs: as of `VAE`.

    Raises:
      UserError: as of `VAE`; or the prior is made of an encoder, or only a part
        of the variables is to be trained.
    """

    def __init__(
        self,
        encoder: PosteriorTable,
        decoder: Decoder,
        held_out: PosteriorTable,
        **kwargs,
    ):
        self.held_out = held_out
        super().__init__(encoder, decoder, **kwargs)

    def build(self, input_shape):
        if not self.held_out.built:
            self.held_out.build(input_shape)
        prior = type(self.prior).__name__
        for name, fits, expected, received in (
            ("prior", not self.prior.uses_encoder, "another one", prior),
            (
                "train_variables",
                self.train_variables == "all",
                "all",
                self.train_variables,
            ),
        ):
            if not fits:
                raise UserError(
                    f"{name}: expected {expected} with a table of q(z|x) in "
                    f"the place of an encoder, received {received}."
                )
        super().build(input_shape)

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
        updates, step = calls_of(self.optimizer), self.optimizer.iterations
        # Of each image's own bound, whatever the size of its batch.
        count = tf.cast(tf.shape(images)[0], tf.float32)
        posterior = self._moved(
            self.encoder,
            numbers,
            images,
            lambda draws: count * self.objective(draws, step),
            UPDATES,
            ("rows", updates),
        )
        noise = self._noise(
            key("training", self.seed, updates),
            executions.place_of(images),
            self.objective.num_samples,
        )
        with tf.GradientTape() as tape:
            draws = self.draws_from(
                posterior,
                images,
                noise,
                ("generative",),
                self.gradient_estimator,
            )
            loss = -self.objective(draws, step) + sum(self.losses)
            variables = self.generative_variables
            minimize(loss, self.optimizer, variables, tape, self.guard)
        if not executions.images_are_made():
            self.refused.update_state(images)
        return self._track(draws, loss)

    def test_step(self, data):
        images, numbers = self._numbered(data)
        objective = self.objective
        seen = self.trackers[objective.bound].count  # in this pass
        posterior = self._moved(
            self.held_out,
            numbers,
            images,
            lambda draws: tf.reduce_sum(
                objective.bounds(draws)[objective.bound]
            ),
            HELD_OUT_UPDATES,
            ("held out rows", calls_of(self.optimizer), seen),
        )
        noise = self._noise(
            key("validation", 0, seen),
            executions.place_of(images),
            objective.num_samples,
        )
        self.refused.update_state(images)
        return self._track(self.draws_from(posterior, images, noise))

    def _moved(
        self,
        table: PosteriorTable,
        numbers: tf.Tensor,
        images: tf.Tensor,
        bound: Callable[[Draws], tf.Tensor],
        updates: int,
        draws_of: tuple,
    ) -> tfd.Distribution:
        """q(z|x) of rows, moved with theta held, and kept in their table.

        Args:
          table: that has the rows.
          numbers: of the rows, `[B]`.
          images: theirs, `[B, H, W, C]`.
          bound: what is maximised, a sum over images, in nats.
          updates: how often.
          draws_of: purpose of their noise, number of the training step and, of
            a batch that theta learns nothing of, of images before it.
        """
        purpose, step, *seen = draws_of
        number = tf.cast(step, tf.int64) * 2**32
        number += tf.cast(sum(seen), tf.int64) * (updates + 1)
        rate = tf.minimum(RATE * self.optimizer.learning_rate, LARGEST)
        place = executions.place_of(images)

        def noise_of(update):
            return self._noise(
                key(purpose, self.seed, number + update),
                place,
                self.objective.num_samples,
            )

        def update(done, rows):
            # TFP keeps what it made of a tensor, in a loop too, for use after.
            own, noise = tf.identity(images), noise_of(done)
            with tf.GradientTape() as tape:
                step = tf.zeros_like(rows.mean)
                tape.watch(step)
                value = bound(
                    self.draws_from(
                        rows.moved(step).posterior,
                        own,
                        noise,
                        gradient_estimator=self.gradient_estimator,
                    )
                )
            return done + 1, rows.updated(tape.gradient(value, step), rate)

        rows = self._leapt(table.rows(numbers), images, noise_of(updates))
        _, rows = tf.while_loop(
            lambda done, _: done < updates,
            update,
            (tf.constant(0, tf.int64), rows),
        )
        table.assign(numbers, rows)
        return rows.posterior

    def _leapt(self, rows: Rows, images: tf.Tensor, noise: tf.Tensor) -> Rows:
        """Rows, of which those go to where another one of the batch is that
        have a larger ELBO there: a gradient does not lead past a worse place.
        By few draws an ELBO may seem larger in a worse place, and a row that
        leaps begins anew; so p(x, z) has to be larger at the place itself, too.
        """
        places = rows.loc[:PLACES]  # [M, D], as random as the batch
        heights = self.log_joint(images, places[:, tf.newaxis])  # [M, B]
        best = tf.gather(places, tf.argmax(heights, axis=0))
        own = self.log_joint(images, rows.loc)
        higher = tf.reduce_max(heights, axis=0) > own + LEAP
        # As they were at first, but for scale and the noise of both.
        others = Rows(best, rows.scale, *map(tf.zeros_like, rows[2:]))
        here, there = (
            elbo(self.draws_from(one.posterior, images, noise)).elbo
            for one in (rows, others)
        )
        leaps = higher & (there > here + LEAP)
        return Rows(
            *(
                tf.where(
                    tf.reshape(leaps, [-1] + [1] * (a.shape.rank - 1)), b, a
                )
                for a, b in zip(rows, others, strict=True)
            )
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
        devices = executions.place_of(images).devices
        if devices > 1:
            raise UserError(
                "strategy: expected one device with a table of q(z|x), whose "
                f"rows have but one place, received {devices}."
            )
        return images, given["row"]

    def get_config(self):
        return super().get_config() | {
            "held_out": keras.saving.serialize_keras_object(self.held_out),
        }
