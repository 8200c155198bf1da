"""Each family against the same one of Pythae, and the model of the tutorial's
repository against PyTorch's and JAX's: the same networks, bits, batches and
constant learning rate, after equal steps and after equal seconds.

python -m benchmarks.peers --peers_python peers_env/bin/python

Static binarised MNIST, log p(x) of the first test images, in nats, by one
scorer that imports none of the contestants (`benchmarks.peers.scoring`), from K
draws of each one's own q(z|x).

Pythae 0.1.2: 784-512-40, ReLU, Adam at 0.001, batches of 64, its own flow; a
VampPrior of 500, IWAE with K = 5. The repository: 784-256-256-128, RMSprop at
0.001, batches of 128, in PyTorch, and as a careful user would write it in JAX,
whole epochs in one compiled scan. Ours has the defaults of `train.py`
otherwise (biases of the mean image, the best epoch by validation, which its
seconds include), but for --kl_warmup_epochs 0, because theirs have none and
trainings are short, and --ema_momentum 0.998, an average of the weights over
some 500 steps, which theirs have not. Equal seconds are the peer's, in
which ours trains for as many epochs as fit."""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import vae_tf
from benchmarks.peers.ours import written
from benchmarks.peers.scoring import log_p
from benchmarks.shared.commands import ROOT
from vae_tf import command_line
from vae_tf.evaluation.comparison import paired
from vae_tf.settings import Settings, setting

PYTHAE = {"hidden_units": (512,), "latent_dim": 40, "batch_size": 64}
REPOSITORY = {
    "hidden_units": (256, 256),
    "latent_dim": 128,
    "batch_size": 128,
    "optimizer": "rmsprop",
}
# Peer, its family, and ours.
CONTESTS = {
    "mean_field": ("Pythae", PYTHAE),
    "vamp": ("Pythae", PYTHAE | {"prior": "vamp", "num_components": 500}),
    "iaf": (
        "Pythae",
        # Its MADE has three hidden layers of 128.
        PYTHAE | {"posterior": "iaf", "flow_units": (128, 128, 128)},
    ),
    "iwae": ("Pythae", PYTHAE | {"objective": "iwae", "num_samples": 5}),
    "repository": ("repository", REPOSITORY),
    "repository_jax": ("JAX", REPOSITORY),
}
MODULES = {
    "Pythae": "pythae_models",
    "repository": "torch_vae",
    "JAX": "jax_vae",
}
RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Peers(Settings):
    peers_python: str = setting(
        sys.executable, "a Python that can import pythae, torch, jax and optax"
    )
    contests: tuple[str, ...] = setting(tuple(CONTESTS), "rows of the table")
    epochs: int = setting(8, "of equal steps", minimum=2)
    num_examples: int = setting(1000, "test images", minimum=2)
    num_importance_samples: int = setting(200, "K", minimum=1)
    seed: int = setting(0, "of every contestant", minimum=0)
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def peer(name: str, images: str, out: str, settings: Peers) -> float:
    """Trains a peer, which writes its arrays; seconds of its training."""
    who, ours = CONTESTS[name]
    module = MODULES[who]
    command = [settings.peers_python, "-m", f"benchmarks.peers.{module}"]
    given = {
        "images": images,
        "out": out,
        "epochs": settings.epochs,
        "batch": ours["batch_size"],
        "latent": ours["latent_dim"],
        "seed": settings.seed,
        "num_examples": settings.num_examples,
        "num_samples": settings.num_importance_samples,
    }
    if who == "Pythae":
        given |= {"family": name, "rate": RATE}
    command += [part for k, v in given.items() for part in (f"--{k}", str(v))]
    if who != "Pythae":
        command += ["--hidden", *map(str, ours["hidden_units"])]
    said = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    return float(said[said.index("SECONDS") + 1])


def fitting(seconds: list[float], limit: float) -> int:
    """Epochs that fit in so many seconds, by the ends of those of a training:
    the first one compiles.
    """
    each = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    return max(1 + int((limit - seconds[0]) / each), 1)


def contest(name: str, images: str, settings: Peers) -> None:
    """Prints the rows of a family."""
    who, ours = CONTESTS[name]
    with np.load(images) as file:
        test = file["test"][: settings.num_examples]
    with tempfile.TemporaryDirectory() as directory:
        out = f"{directory}/peer.npz"
        theirs = peer(name, images, out, settings)
        their_log_p = log_p(out, test)

        def trained(kind, epochs):
            config = vae_tf.Config(
                dataset="binarized_mnist",
                data_dir=settings.data_dir,
                epochs=epochs,
                learning_rate=RATE,
                lr_schedule="constant",
                kl_warmup_epochs=0,
                ema_momentum=0.998,
                seed=settings.seed,
                figures_every=0,
                tensorboard=False,
                run_dir=f"{directory}/{kind}",
                **ours,
            )
            arrays = f"{directory}/{kind}.npz"
            ends = written(
                config,
                arrays,
                settings.num_examples,
                settings.num_importance_samples,
            )
            return ends, log_p(arrays, test)

        steps, at_steps = trained("steps", settings.epochs)
        seconds, at_seconds = trained("seconds", fitting(steps, theirs))
    for kind, ends, found in (
        ("steps", steps, at_steps),
        ("seconds", seconds, at_seconds),
    ):
        gain, error = paired(found, their_log_p)
        print(
            f"| {name} | {who} | {kind} | {settings.epochs}, {len(ends)} "
            f"| {theirs:.0f}, {ends[-1]:.0f} | {their_log_p.mean():.2f} "
            f"| {found.mean():.2f} | {gain:.2f} ± {error:.2f} "
            f"| {gain / error:.1f} |",
            flush=True,
        )


def main(given):
    settings = Peers(**given)
    for name in settings.contests:
        if name not in CONTESTS:
            raise vae_tf.UserError(
                f"--contests: expected some of {', '.join(CONTESTS)}, received "
                f"{name!r}."
            )
    source = vae_tf.load_data(
        "binarized_mnist", data_dir=settings.data_dir
    ).source
    print(
        "| family | peer | equal | epochs, theirs and ours | seconds | theirs "
        "| ours | gain | gain / s.e. |\n" + "|---" * 9 + "|"
    )
    with tempfile.TemporaryDirectory() as directory:
        images = str(pathlib.Path(directory) / "images.npz")
        np.savez(images, **source.images)
        for name in settings.contests:
            contest(name, images, settings)


if __name__ == "__main__":
    command_line.run(Peers, main, __doc__)
