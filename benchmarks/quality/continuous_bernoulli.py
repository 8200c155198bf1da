"""The continuous Bernoulli against the Bernoulli formula on grey values, on
dequantised MNIST: test ELBO in nats (of a density) per image.

python -m benchmarks.quality.continuous_bernoulli

Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845. The Bernoulli formula, x log
p + (1 - x) log(1 - p), integrates to no constant over x in [0, 1]; the package
refuses it on grey values, so it is defined here. What it trains is read as a
continuous Bernoulli in two ways: p as lambda, or p as the mean."""

import dataclasses
import math
import pathlib

from vae_tf import command_line
from vae_tf.settings import Settings, setting

HIDDEN_UNITS = (500, 500)
LATENT_DIM = 20
LEARNING_RATE = 1e-3
# The largest logits of lambda in [1e-4, 1 - 1e-4].
CLIP = math.log((1 - 1e-4) / 1e-4)


@dataclasses.dataclass(frozen=True)
class Benchmark(Settings):
    epochs: int = setting(60, "of each of three trainings", minimum=1)
    num_importance_samples: int = setting(
        100, "K, draws of z for each image", minimum=1
    )
    num_examples: int | None = setting(
        None, "the first so many test images (unset: all)", minimum=1
    )
    seed: int = setting(0, "of weights, training and draws", minimum=0)
    models_dir: str = setting(
        "runs/continuous_bernoulli",
        "where trained models are kept; those that finished are not trained "
        "again",
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def main(given):
    settings = Benchmark(**given)
    # After the flags: `--help` needs no TensorFlow.
    import keras
    import tensorflow as tf

    import vae_tf
    from vae_tf import likelihoods
    from vae_tf.evaluation import importance
    from vae_tf.pixels import continuous_bernoulli_mean

    class BernoulliFormula(likelihoods.Bernoulli):
        """log p(x|z) = x log p + (1 - x) log(1 - p), for x in [0, 1]."""

        support = "interval"

    class Read(likelihoods.ContinuousBernoulli):
        """A continuous Bernoulli whose logits of lambda are `reading` of what
        the network gives.
        """

        def __init__(self, image_shape, reading):
            super().__init__(image_shape)
            self.reading = reading

        def distribution(self, parameters):
            return super().distribution(self.reading(parameters))

    def as_lambda(logits):
        return logits

    def as_mean(logits):
        """The logits of lambda where the mean is p = sigmoid(logits)."""
        rare = tf.sigmoid(-tf.abs(logits))  # p or 1 - p, the smaller
        # The mean at logits -a is 1/a - 1/(exp(a) - 1): it falls with a, and
        # is 1/a to the last bit of a float32 from a = 20.
        low, high = tf.zeros_like(rare), tf.fill(tf.shape(rare), 20.0)
        for _ in range(30):
            middle = (low + high) / 2
            above = continuous_bernoulli_mean(-middle) > rare
            low = tf.where(above, middle, low)
            high = tf.where(above, high, middle)
        size = tf.where(rare < 1 / 20, 1 / rare, middle)
        return tf.sign(logits) * size

    def clipped(reading):
        return lambda logits: tf.clip_by_value(reading(logits), -CLIP, CLIP)

    data = vae_tf.load_data(
        "mnist",
        data_dir=settings.data_dir,
        likelihood="continuous_bernoulli",
        seed=settings.seed,
    )

    def untrained(likelihood):
        return vae_tf.VAE(
            encoder=vae_tf.Encoder(LATENT_DIM, hidden_units=HIDDEN_UNITS),
            decoder=vae_tf.Decoder(
                data.image_shape, likelihood, hidden_units=HIDDEN_UNITS
            ),
            seed=settings.seed,
        )

    def trained(name, likelihood):
        keras.utils.set_random_seed(settings.seed)
        vae = untrained(likelihood)
        kept = f"{name}-{settings.epochs}-{settings.seed}.weights.h5"
        path = pathlib.Path(settings.models_dir) / kept
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            print(f"training {name}")
            partial = path.with_name(f".{path.name}")
            best = keras.callbacks.ModelCheckpoint(
                partial,
                monitor="val_elbo",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
            )
            if name != "clipped":
                # Most of the biases would lie beyond the clip, where a
                # gradient is 0 for good.
                vae.adapt(data.train)
            steps = settings.epochs * len(data.train)
            schedule = keras.optimizers.schedules.CosineDecay(
                0.0,
                steps - steps // 20,
                warmup_target=LEARNING_RATE,
                warmup_steps=steps // 20,
            )
            vae.compile(
                keras.optimizers.Adam(schedule),
                jit_compile=True,
                steps_per_execution=32,
            )
            vae.fit(
                data.train,
                validation_data=data.validation,
                epochs=settings.epochs,
                callbacks=[best],
                verbose=2,
            )
            partial.rename(path)
        vae.load_weights(path)
        return vae

    def nats(vae, reading):
        """Test figures of the trained networks, read as a continuous
        Bernoulli; the noise is that of every other row.
        """
        read = untrained(Read(data.image_shape, reading))
        read.set_weights(vae.get_weights())
        test = data.in_order(
            "test", importance.BATCH_SIZE, settings.num_examples
        )
        found = importance.evaluate(
            read, test, settings.num_importance_samples, settings.seed
        )
        return importance.summary(found, settings.num_importance_samples)

    ours = trained("continuous_bernoulli", Read(data.image_shape, as_lambda))
    ours_clipped = trained(
        "clipped", Read(data.image_shape, clipped(as_lambda))
    )
    formula = trained("bernoulli_formula", BernoulliFormula(data.image_shape))
    rows = (
        ("continuous Bernoulli", "lambda", ours, ours_clipped, as_lambda, 1470),
        ("Bernoulli formula", "lambda", formula, formula, as_lambda, 1139),
        ("Bernoulli formula", "the mean", formula, formula, as_mean, 1416),
    )
    print(
        "| trained with | network gives | ELBO | log p(x) "
        "| ELBO, lambda clipped | authors, clipped |"
    )
    print("|---|---|---|---|---|---|")
    for objective, gives, vae, vae_clipped, reading, authors in rows:
        free, held = nats(vae, reading), nats(vae_clipped, clipped(reading))
        print(
            f"| {objective} | {gives} | {free['elbo']:.1f} "
            f"| {free['log_marginal_likelihood']:.1f} ± "
            f"{free['standard_error']:.1f} | {held['elbo']:.1f} | {authors} |"
        )
    print(
        f"\n{data.source.variant}, dequantised (k + u) / 256, test split, "
        f"{free['num_examples']} images, K = "
        f"{settings.num_importance_samples}, seed {settings.seed}, nats of a "
        "density per example"
    )


if __name__ == "__main__":
    command_line.run(Benchmark, main, __doc__)
