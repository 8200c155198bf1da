"""Where the milliseconds of a training step go, and what each of the choices
behind `fit` saves: 784-256-256-128z on binarised MNIST, centred RMSprop.

python -m benchmarks.speed.step_profile

Every row but the last three is a loop that XLA compiles."""

import dataclasses
import statistics
import time

import keras
import tensorflow as tf

import vae_tf
from benchmarks.shared.floor import PEAK_SIZE, products, products_of
from vae_tf import command_line
from vae_tf.noise import standard_normal
from vae_tf.runs.training import steps_per_execution
from vae_tf.settings import Settings, setting
from vae_tf.vae import minimize

HIDDEN, LATENT = (256, 256), 128
STEPS = 100  # of a loop


@dataclasses.dataclass(frozen=True)
class StepProfile(Settings):
    batch_size: int = setting(128, "images", minimum=1)
    repetitions: int = setting(5, "of each loop; the median counts", minimum=1)
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def milliseconds(play, steps: int, repetitions: int) -> float:
    """Of a step: the median over calls of `play`."""
    play()  # compiles
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        play()
        times.append(1000 * (time.perf_counter() - start) / steps)
    return statistics.median(times)


def loop(value):
    """Sums `value(number)` over the steps of one compiled loop."""

    @tf.function(jit_compile=True)
    def run():
        return tf.while_loop(
            lambda number, _: number < STEPS,
            lambda number, total: (number + 1, total + value(number)),
            (0, 0.0),
        )[1]

    return lambda: run().numpy()


def step_by_step(step):
    """The steps, each a call of its own to what XLA compiled."""
    compiled = tf.function(step, jit_compile=True)

    @tf.function
    def run():
        return tf.while_loop(
            lambda number, _: number < STEPS,
            lambda number, total: (number + 1, total + compiled(number)),
            (0, 0.0),
            parallel_iterations=1,
        )[1]

    return lambda: run().numpy()


def main(given):
    settings = StepProfile(**given)
    keras.utils.set_random_seed(0)
    data = vae_tf.load_data(
        "binarized_mnist",
        data_dir=settings.data_dir,
        batch_size=settings.batch_size,
    )
    vae = vae_tf.VAE(
        vae_tf.Encoder(LATENT, hidden_units=HIDDEN),
        vae_tf.Decoder(data.image_shape, hidden_units=HIDDEN[::-1]),
    )
    rows = settings.batch_size
    optimizer = keras.optimizers.RMSprop(1e-3, centered=True)
    vae.compile(optimizer, steps_per_execution=steps_per_execution(data))
    optimizer.build(vae.trainable_variables)
    images = next(iter(data.train))
    shape = (1, rows, LATENT)
    generator = keras.random.SeedGenerator(0)
    logits = tf.random.normal((rows, *data.image_shape))
    likelihood = vae.decoder.likelihood

    def slightly(tensor, number):  # Else XLA takes it out of the loop.
        return tensor + 1e-20 * tf.cast(number, tf.float32)

    def bernoulli(number):
        pixels = likelihood.distribution(slightly(logits, number))
        return tf.reduce_sum(pixels.log_prob(images))

    def forward(number, noise=None):
        x = slightly(images, number)
        noise = standard_normal(shape, [0, number]) if noise is None else noise
        return -vae.objective(vae.draws(x, noise), 0)

    def gradient(number):
        with tf.GradientTape() as tape:
            loss = forward(number)
        slopes = tape.gradient(loss, vae.trainable_variables)
        return loss + sum(1e-20 * tf.reduce_sum(slope) for slope in slopes)

    def step(number, key=lambda number: [0, number]):
        noise = standard_normal(shape, key(number))
        with tf.GradientTape() as tape:
            loss = forward(number, noise)
            minimize(loss, optimizer, vae.trainable_variables, tape)
        return loss

    def with_generator(number):
        return step(number, lambda _: generator.next())

    def default_noise(number):
        noise = tf.random.stateless_normal(shape, tf.stack([0, number]))
        return tf.reduce_sum(noise)

    def fit(**compilation):
        vae.compile(
            keras.optimizers.RMSprop(1e-3, centered=True), **compilation
        )

        def play():
            vae.fit(data.train, epochs=1, verbose=0)

        return play

    def show(name, play, steps=STEPS):
        took = milliseconds(play, steps, settings.repetitions)
        print(f"| {name} | {took:.2f} |", flush=True)

    multiply = products()
    rate = (
        2e-6 * PEAK_SIZE**3 / milliseconds(multiply, 10, settings.repetitions)
    )
    floor = 2e-6 * rows * products_of("mlp", HIDDEN, LATENT) / rate
    print("| what | ms |\n|---|---|")
    print(
        f"| matrix products at {rate:.0f} GFLOP/s (the floor) | {floor:.2f} |"
    )
    show(
        "noise",
        loop(lambda n: tf.reduce_sum(standard_normal(shape, [0, n]))),
    )
    show("noise, as TensorFlow draws it by default", loop(default_noise))
    show("Bernoulli log p(x given z), given the logits", loop(bernoulli))
    show("ELBO", loop(forward))
    show("ELBO and its gradient", loop(gradient))
    show("whole step", loop(step))
    show("whole step, noise from a SeedGenerator", loop(with_generator))
    show("whole step, each step a call", step_by_step(step))
    count = len(data.train)
    show(
        "`fit`",
        fit(jit_compile=True, steps_per_execution=steps_per_execution(data)),
        count,
    )
    show("`fit`, not compiled", fit(jit_compile=False), count)


if __name__ == "__main__":
    command_line.run(StepProfile, main, __doc__)
