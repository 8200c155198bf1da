"""More draws where log p(x) is not yet known to a tolerance, and only there."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from vae_tf.evaluation.compiled import compiled
from vae_tf.evaluation.estimates import Estimates, kept, of_moments
from vae_tf.evaluation.moments import Moments, importance_moments
from vae_tf.noise import key, standard_normal
from vae_tf.settings import UserError
from vae_tf.vae import VAE

MOST = 128_000  # K beyond which no image is drawn for
STRETCH = 1000  # draws of one image in one call
PLACES = 128  # stretches in one call, of one image or of many
AT_ONCE = 16  # draws of each place decoded together
# Calls number their draws above those of the first K, see `importance`.
SECOND = 2**31

Unfinished = dict[int, Moments]  # number of an image -> moments of its draws


def check(tolerance: float) -> None:
    """Raises UserError unless the tolerance is a positive number."""
    if type(tolerance) not in (int, float) or not 0 < tolerance < math.inf:
        raise UserError(
            "tolerance: expected a finite number > 0 of nats, received "
            f"{tolerance!r}."
        )


def unfinished(
    found: Estimates, moments: Moments, tolerance: float, first: int
) -> Unfinished:
    """The moments of those images of a batch, the first of them number `first`,
    whose standard error of log p(x) is not below the tolerance.
    """
    short = ~(np.sqrt(found.variance) < tolerance)  # NaN: True
    return {
        first + row: _row(moments, row)._replace(bounds=np.zeros(0))
        for row in np.flatnonzero(short).tolist()
    }


def grow(
    vae: VAE,
    dataset: tf.data.Dataset,
    left: Unfinished,
    num_samples: int,
    seed: int,
    tolerance: float,
    verbose: int = 0,
) -> Iterator[tuple[list[int], Estimates]]:
    """Estimates from ever more draws of the images that need them: K is about
    doubled, in whole thousands, until an image's standard error is below the
    tolerance or a thousand more would be more than 128,000. The new draws
    join the old.

    Each draw is a function of the seed, the image's number and its own, however
    many images are left. They share calls of 128,000 draws; memory: one call,
    and the 1,088 largest weights of each image that is left.

    Args:
      vae: a trained model.
      dataset: batches of images `[B, H, W, C]`, the same at each pass.
      left: by their numbers in the dataset, moments of the images' first K
        draws, with as many largest weights as `kept(MOST)`, or all.
      num_samples: K.
      seed: of the draws.
      tolerance: in nats.
      verbose: 1 shows a progress bar for each K.

    Yields:
      Numbers of the images that were left, and their estimates without
      `bounds`, after each stage.
    """
    stretches = 0  # that each of these images has had
    while left and num_samples + STRETCH <= MOST:
        more = min(
            math.ceil(num_samples / STRETCH), (MOST - num_samples) // STRETCH
        )
        calls = math.ceil(len(left) * more / PLACES)
        bar = keras.utils.Progbar(calls, verbose=verbose)
        numbers = range(stretches, stretches + more)
        had = dict.fromkeys(left, num_samples)
        for number, moments in _stretches(
            vae, dataset, left, numbers, seed, bar
        ):
            left[number] = _joined(left[number], had[number], moments, STRETCH)
            had[number] += STRETCH
        stretches, num_samples = stretches + more, num_samples + more * STRETCH
        still: Unfinished = {}
        for batch in _batches(list(left)):
            together = Moments(
                *(
                    np.stack(parts, axis=-1)
                    for parts in zip(*map(left.get, batch), strict=True)
                )
            )
            found = of_moments(together, num_samples)
            yield batch, found
            reached = np.sqrt(found.variance) < tolerance
            still |= {
                number: left[number]
                for number, enough in zip(batch, reached, strict=True)
                if not enough
            }
        left = still


def _stretches(vae, dataset, left, numbers, seed, bar):
    """Pairs of an image's number and `Moments` of one stretch of draws of its
    own, for each image left and each of the stretches' numbers.
    """
    places: list[tuple[int, int]] = []
    images: list[np.ndarray] = []

    def call():
        # What is missing to a full call is drawn again, and left out.
        fill = np.resize(np.arange(len(places)), PLACES)
        moments = compiled(vae, _stretch_moments)(
            tf.constant(np.stack(images)[fill]),
            tf.constant(np.array(places)[fill], tf.int64),
            tf.constant(seed, tf.int64),
        )
        moments = Moments(*(moment.numpy() for moment in moments))
        for row, (image, _) in enumerate(places):
            yield image, _row(moments, row)
        places.clear()
        images.clear()
        bar.add(1)

    first = 0
    for batch in dataset:
        batch = vae.check_images(batch).numpy()
        for row, image in enumerate(batch):
            for number in numbers if first + row in left else ():
                places.append((first + row, number))
                images.append(image)
                if len(places) == PLACES:
                    yield from call()
        first += len(batch)
    if places:
        yield from call()


def _stretch_moments(vae, images, places, seed) -> Moments:
    """`Moments` of a stretch for each pair of an image's number and the
    stretch's `[PLACES, 2]`, int64, all weights among them.
    """
    dim, chunks = vae.encoder.latent_dim, math.ceil(STRETCH / AT_ONCE)

    def noise(chunk):
        # [PLACES, AT_ONCE, D] -> [AT_ONCE, PLACES, D]
        number = SECOND + places[:, 1] * chunks + tf.cast(chunk, tf.int64)
        drawn = tf.map_fn(
            lambda number: standard_normal(
                (AT_ONCE, dim), key("importance", seed, number)
            ),
            places[:, 0] * 2**32 + number,
            fn_output_signature=tf.TensorSpec((AT_ONCE, dim), tf.float32),
        )
        return tf.transpose(drawn, (1, 0, 2))

    return importance_moments(
        vae,
        images,
        vae.encoder(images),
        vae.prior_distribution(),
        STRETCH,
        AT_ONCE,
        noise,
        STRETCH,
    )


def _joined(one: Moments, of_one: int, other: Moments, of_other: int):
    """The moments of both sets of draws together, of one image."""
    share = of_other / (of_one + of_other)
    every = np.concatenate([one.largest, other.largest])
    return Moments(
        reconstruction=one.reconstruction
        + share * (other.reconstruction - one.reconstruction),
        kl=one.kl + share * (other.kl - one.kl),
        log_sum=np.logaddexp(one.log_sum, other.log_sum),
        log_sum_of_squares=np.logaddexp(
            one.log_sum_of_squares, other.log_sum_of_squares
        ),
        largest=np.sort(every)[::-1][: kept(MOST)],
        bounds=one.bounds,
    )


def _row(moments: Moments, row: int) -> Moments:
    """Of one image, in float64 but for the many largest weights."""
    parts = (np.asarray(part)[..., row] for part in moments)
    return Moments(
        *(part.copy() if part.ndim else np.float64(part) for part in parts)
    )


def _batches(numbers: list[int]) -> list[list[int]]:
    return [
        numbers[start : start + PLACES]
        for start in range(0, len(numbers), PLACES)
    ]
