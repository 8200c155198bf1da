"""Mean-field against amortized inference on 10,000 images of MNIST: the train
ELBO of a table of q(z|x_i), and of an encoder fitted to the same theta, in nats
per image.

python -m benchmarks.quality.table_against_encoder
"""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

import vae_tf
from benchmarks.shared.commands import run
from vae_tf import command_line
from vae_tf.evaluation.comparison import paired
from vae_tf.noise import key, standard_normal
from vae_tf.runs.directory import load_data_of_run
from vae_tf.settings import Settings, setting

DRAWS = 100  # of z for each image
BATCH = 500


@dataclasses.dataclass(frozen=True)
class Comparison(Settings):
    latent_dim: int = setting(2, "D", minimum=1)
    num_images: int = setting(10_000, "training images", minimum=1)
    epochs: int = setting(100, "of each training", minimum=1)
    runs_dir: str = setting(
        "runs/table_against_encoder", "the runs; what is there is kept"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def subset(settings: Comparison, path: pathlib.Path) -> None:
    """Writes an .npz of the first training images, and 1,000 of both others."""
    source = vae_tf.load_data("mnist", data_dir=settings.data_dir).source
    arrays = {}
    for split, count in (
        ("train", settings.num_images),
        ("validation", 1000),
        ("test", 1000),
    ):
        arrays[f"x_{split}"] = source.images[split][:count]
        arrays[f"y_{split}"] = source.labels[split][:count]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def trained(inference: str, settings: Comparison, dataset: pathlib.Path):
    """The best model of a run, which goes on where it was stopped; its data."""
    folder = pathlib.Path(settings.runs_dir)
    run_dir = folder / f"{inference}-{settings.latent_dim}"
    begun = ["--resume"] if (run_dir / "config.json").exists() else []
    run(
        f"train.py --inference {inference} --dataset {dataset} "
        f"--binarization static --latent_dim {settings.latent_dim} "
        f"--epochs {settings.epochs} --figures_every 0",
        "--run_dir",
        str(run_dir),
        *begun,
    )
    return vae_tf.load(run_dir), load_data_of_run(run_dir)


def fitted(vae, data, settings: Comparison):
    """An encoder trained on a model's theta, which is held."""
    keras.utils.set_random_seed(0)
    other = vae_tf.VAE(
        vae_tf.Encoder(settings.latent_dim),
        vae.decoder,
        prior=vae.prior,
        train_variables="inference",
    )
    steps = settings.epochs * len(data.train)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    other.compile(keras.optimizers.Adam(schedule), steps_per_execution=32)
    other.fit(data.train, epochs=settings.epochs, verbose=2)
    return other


def elbos(vae, posterior_of, images: np.ndarray) -> np.ndarray:
    """The ELBO of each image `[N]`, in nats, by the same noise for all q."""

    @tf.function(jit_compile=True)
    def batch(first, images):
        shape = (DRAWS, images.shape[0], vae.encoder.latent_dim)
        noise = standard_normal(shape, key("elbo", 0, first))
        posterior = posterior_of(first + tf.range(images.shape[0]), images)
        draws = vae.draws_from(posterior, images, noise)
        return tf.reduce_mean(draws.log_weights, axis=0)

    return np.concatenate(
        [
            batch(tf.constant(first), tf.constant(images[first:][:BATCH]))
            for first in range(0, len(images), BATCH)
        ]
    )


def main(given):
    settings = Comparison(**given)
    dataset = pathlib.Path(settings.runs_dir).resolve() / "mnist.npz"
    if not dataset.exists():
        subset(settings, dataset)
    table, _ = trained("mean_field", settings, dataset)
    amortized, data = trained("amortized", settings, dataset)
    encoder = fitted(table, data, settings)
    images = np.concatenate(
        list(data.in_order("train", BATCH).as_numpy_iterator())
    )
    rows = elbos(table, lambda rows, _: table.encoder(rows), images)
    print("| q(z\\|x) | theta | train ELBO | table less this |")
    print("|---|---|---|---|")
    for q, theta, found in (
        ("table", "the table's", rows),
        (
            "encoder",
            "the table's, held",
            elbos(table, lambda _, x: encoder.encoder(x), images),
        ),
        (
            "encoder",
            "its own",
            elbos(amortized, lambda _, x: amortized.encoder(x), images),
        ),
    ):
        gain, error = paired(rows, found)
        print(
            f"| {q} | {theta} | {found.mean():.2f} ± "
            f"{found.std(ddof=1) / np.sqrt(len(found)):.2f} ",
            f"| {gain:.2f} ± {error:.2f} |" if found is not rows else "| |",
            sep="",
        )
    print(
        f"\n{len(images)} images, latent_dim {settings.latent_dim}, "
        f"{settings.epochs} epochs, nats per image; gains are paired"
    )


if __name__ == "__main__":
    command_line.run(Comparison, main, __doc__)
