"""What a training starts from: the run that it resumes, or another one's best
weights."""

import dataclasses
import warnings
from typing import cast

from vae_tf.config import Config
from vae_tf.data.pipeline import Data
from vae_tf.runs import directory
from vae_tf.runs.reading import config_of, is_begun, read_run
from vae_tf.settings import UserError
from vae_tf.vae import VAE

# Which weights of equal shapes may be of other models.
FAMILIES = (
    "likelihood",
    "normal_scale",
    "posterior",
    "layout",
    "prior",
    "network",
    "activation",
)


def run_to_resume(config: Config) -> Config | None:
    if not config.run_dir:
        raise UserError(
            "--resume: expected --run_dir with the run to go on with, received "
            "none."
        )
    if not is_begun(config.run_dir):
        return None  # It was ended before it had begun: there is nothing yet.
    saved = config_of(config.run_dir)
    directory.require_writable(config.run_dir)
    return saved


def filled_from(saved: Config, config: Config) -> Config:
    """`config` with what it leaves unset taken from the run that it resumes."""
    unset = {
        field.name: getattr(saved, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) is None
    }
    return dataclasses.replace(config, **unset)


def require_unchanged(saved: Config, config: Config, data: Data) -> None:
    """Raises UserError where a resumed run would not be the same run."""
    for field in dataclasses.fields(config):
        ours, theirs = getattr(config, field.name), getattr(saved, field.name)
        if field.name not in Config.RESUMABLE and ours != theirs:
            raise UserError(
                f"--{field.name}: expected {theirs!r}, with which the run in "
                f"{config.run_dir} began, received {ours!r} with --resume."
            )
    recorded, found = (
        read_run(cast(str, config.run_dir))["data"],
        data.describe(),
    )
    if recorded["checksum"] != found["checksum"]:
        raise UserError(
            f"--resume: expected the data of the run, {recorded['variant']} "
            f"with {recorded['checksum']}, received {found['variant']} with "
            f"{found['checksum']}."
        )


def require_same_model(config: Config, vae: VAE) -> None:
    """Raises UserError where the weights of `config.initial_run` are none of
    the model of `config`.
    """
    initial = cast(str, config.initial_run)
    try:
        saved, theirs = config_of(initial), directory.load(initial)
    except UserError as error:
        raise UserError(f"--initial_run: {error}") from None
    pairs = {
        name: (getattr(config, name), getattr(saved, name)) for name in FAMILIES
    }
    pairs["shapes of weights"] = (_shapes(vae), _shapes(theirs))
    for name, (expected, received) in pairs.items():
        if expected != received:
            raise UserError(
                f"--initial_run: expected a run of the same model, {name} "
                f"{expected}, received {initial!r}, of {received}."
            )


def _shapes(vae: VAE) -> str:
    return ", ".join("x".join(map(str, w.shape)) or "1" for w in vae.weights)


def say_rate(saved: Config, config: Config) -> None:
    """Warns where a resumed run's step size takes another course."""
    if saved.learning_rate != config.learning_rate:
        warnings.warn(
            f"--learning_rate: {config.learning_rate} in place of "
            f"{saved.learning_rate}, with which the run began.",
            stacklevel=2,
        )
    if saved.epochs == config.epochs or config.lr_schedule == "constant":
        return
    warnings.warn(
        f"--epochs: {config.epochs} stretches the {config.lr_schedule} "
        f"schedule, which ended at epoch {saved.epochs}: the step size goes on "
        "where the longer schedule has it, above where the run left it "
        "(--lr_schedule constant from the start has no such jump).",
        stacklevel=2,
    )
