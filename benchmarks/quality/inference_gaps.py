"""Where log p(x) - ELBO goes: what the encoder misses of the best q(z) of its
family, and what the family misses of p(z|x), for every family, on static MNIST;
then for narrower and wider encoders of one decoder.

python -m benchmarks.quality.inference_gaps

Cremer, Li and Duvenaud 2018, arXiv:1801.03558. Nats per image; ± is a standard
error over images, with Monte Carlo's in it."""

import dataclasses
import pathlib
import time

import keras

import vae_tf
from benchmarks.shared.commands import run
from vae_tf import command_line
from vae_tf.config import POSTERIORS
from vae_tf.runs.directory import load_data_of_run
from vae_tf.settings import Settings, setting

TRAIN = "train.py --dataset binarized_mnist --figures_every 0"
WIDTHS = ((16,), (64,), (400, 256))  # of encoders; the last one is the default


@dataclasses.dataclass(frozen=True)
class InferenceGaps(Settings):
    latent_dims: tuple[int, ...] = setting((2, 40), "D", minimum=2)
    epochs: int = setting(30, "of each training", minimum=1)
    num_images: int = setting(1000, "of each split", minimum=2)
    runs_dir: str = setting(
        "runs/inference_gaps", "one run per model; those that finished are kept"
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def trained(posterior: str, latent_dim: int, settings: InferenceGaps):
    """Model and data of a run, trained where that has not been done."""
    name = f"{posterior}-{latent_dim}-{settings.epochs}"
    run_dir = pathlib.Path(settings.runs_dir) / name
    place = ["--run_dir", str(run_dir)]
    if settings.data_dir:
        place += ["--data_dir", settings.data_dir]
    begun = ["--resume"] if (run_dir / "config.json").exists() else []
    run(
        f"{TRAIN} --latent_dim {latent_dim} --posterior {posterior} "
        f"--epochs {settings.epochs}",
        *place,
        *begun,
    )
    return vae_tf.load(run_dir), load_data_of_run(run_dir, settings.data_dir)


def row(name: str, vae, data, split: str, count: int) -> str:
    """A row of the table: both gaps of a model on a split."""
    began = time.perf_counter()
    images = next(iter(data.in_order(split, count, count)))
    found = vae_tf.inference_gaps(vae, images).summary()
    seconds = time.perf_counter() - began
    cells = [
        f"{found[key]:.2f} ± {found[f'{key}_standard_error']:.2f}"
        for key in (
            "elbo",
            "refined_elbo",
            "log_marginal_likelihood",
            "amortization",
            "approximation",
        )
    ]
    trusted = 100 * (1 - found["pareto_k_over_0.7"])
    return (
        f"| {name} | {split} | {' | '.join(cells)} | {trusted:.0f}% | "
        f"{100 * found['converged']:.0f}% | {seconds:.0f} |"
    )


def head(first: str) -> None:
    print(
        f"\n| {first} | split | ELBO | ELBO* | log p(x) | amortization gap | "
        "approximation gap | k-hat < 0.7 | converged | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)


def with_encoder(vae, widths: tuple[int, ...], data, epochs: int):
    """The model with a new encoder, trained with theta held."""
    keras.utils.set_random_seed(0)
    new = vae_tf.VAE(
        vae_tf.Encoder(vae.encoder.latent_dim, hidden_units=widths),
        vae.decoder,
        vae.prior,
        train_variables="inference",
    )
    steps = epochs * len(data.train)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    new.compile(keras.optimizers.Adam(schedule), steps_per_execution=32)
    new.fit(data.train, epochs=epochs, verbose=0)
    return new


def main(given):
    settings = InferenceGaps(**given)
    models = {}
    for latent_dim in settings.latent_dims:
        for posterior in POSTERIORS:
            models[posterior, latent_dim] = trained(
                posterior, latent_dim, settings
            )
    head("q")
    for (posterior, latent_dim), (vae, data) in models.items():
        for split in ("train", "test"):
            name = f"{posterior}, D = {latent_dim}"
            print(row(name, vae, data, split, settings.num_images), flush=True)
    head("encoder")
    for latent_dim in settings.latent_dims:
        vae, data = models["mean_field", latent_dim]
        for widths in WIDTHS:
            new = with_encoder(vae, widths, data, settings.epochs)
            name = f"{', '.join(map(str, widths))} units, D = {latent_dim}"
            print(row(name, new, data, "test", settings.num_images), flush=True)
    print(
        f"\n{data.source.variant}, the first {settings.num_images} images of "
        "each split, K = 1000, seed 0, nats per image"
    )


if __name__ == "__main__":
    command_line.run(InferenceGaps, main, __doc__)
