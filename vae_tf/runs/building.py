"""Config -> the data and the untrained model that it describes."""

import contextlib
import dataclasses
from typing import Any

import keras

from vae_tf.config import Config
from vae_tf.data.pipeline import Data, load_data
from vae_tf.decoder import Decoder
from vae_tf.encoder import Encoder
from vae_tf.inference.local_vae import LocalVAE
from vae_tf.inference.table import PosteriorTable
from vae_tf.likelihoods import LIKELIHOODS
from vae_tf.networks import DECODER_BODIES, ENCODER_BODIES
from vae_tf.objectives import OBJECTIVES
from vae_tf.posteriors import POSTERIORS
from vae_tf.priors import PRIORS
from vae_tf.settings import choose
from vae_tf.vae import TRAIN_VARIABLES, VAE

# Unset lengths: passes, or steps where those are fewer; steps of the warm-up.
EPOCHS, STEPS, WARMUP_STEPS = 80, 2400, 1000


def load_data_of(config: Config, data_dir: str | None = None) -> Data:
    """The data that `config` names, from `data_dir` if its own is elsewhere
    today.
    """
    return load_data(
        config.dataset,
        data_dir=data_dir or config.data_dir,
        image_size=config.image_size,
        channels=config.channels,
        likelihood=config.likelihood,
        binarization=config.binarization,
        dequantization=config.dequantization,
        batch_size=config.batch_size,
        seed=config.seed,
        numbered=config.inference == "mean_field",
    )


def build(config: Config, described: dict[str, Any]) -> VAE:
    """The untrained model that `config` describes, for data as `Data.describe`
    describes it.

    Each part takes those settings that its constructor names."""
    height, width, channels = described["image_shape"]
    image_shape = (height, width, channels)
    settings = dataclasses.asdict(config) | {
        "image_shape": image_shape,
        "relative": config.layout > 1,
        "context_to_outputs": config.layout > 1,
        "kl_warmup_steps": (config.kl_warmup_epochs or 0)
        * steps_per_epoch(config, described)
        * updates_per_step(config),
    }
    mirrored = config.hidden_units and config.hidden_units[::-1]

    def part(argument, family, **changes):
        return choose(
            argument, settings[argument], family, **(settings | changes)
        )

    def table(split, **kwargs):
        return PosteriorTable(
            config.latent_dim, described["splits"][split], **kwargs
        )

    with _dtype_policy(config):
        family: type[VAE] = VAE
        inference: dict[str, Any] = {}
        if config.inference == "mean_field":
            family = LocalVAE
            inference["encoder"] = table("train")
            inference["held_out"] = table("validation", trainable=False)
        else:
            inference["encoder"] = Encoder(
                config.latent_dim,
                posterior=part("posterior", POSTERIORS),
                network=part("network", ENCODER_BODIES),
            )
        return family(
            **inference,
            decoder=Decoder(
                image_shape,
                likelihood=part("likelihood", LIKELIHOODS),
                network=part("network", DECODER_BODIES, hidden_units=mirrored),
            ),
            prior=part("prior", PRIORS),
            objective=part("objective", OBJECTIVES),
            train_variables=config.train_variables,
            seed=config.seed,
        )


def steps_per_epoch(config: Config, described: dict[str, Any]) -> int:
    """Batches of a pass over the training images."""
    return -(-described["splits"]["train"] // config.batch_size)


def filled(config: Config, described: dict[str, Any]) -> Config:
    """`config` with the lengths that it leaves unset."""
    steps = steps_per_epoch(config, described)
    epochs = config.epochs or max(EPOCHS, -(-STEPS // steps))
    every, warmup = config.figures_every, config.kl_warmup_epochs
    if warmup is None and config.objective != "iwae":
        # Without a warm-up latents are pruned before they are used, and iaf
        # ends nats below mean_field: benchmarks/quality/defaults.py.
        warmup = min(3 * epochs // 8, max(WARMUP_STEPS // steps, 1))
    return dataclasses.replace(
        config,
        epochs=epochs,
        kl_warmup_epochs=warmup,
        figures_every=max(epochs // 10, 1) if every is None else every,
    )


@contextlib.contextmanager
def _dtype_policy(config: Config):
    """The policy of the layers made meanwhile."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(
        "mixed_bfloat16" if config.mixed_precision else "float32"
    )
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def updates_per_step(config: Config) -> int:
    """How often the optimizer moves in a training step."""
    return len(TRAIN_VARIABLES[config.train_variables])
