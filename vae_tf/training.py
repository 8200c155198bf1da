"""Config -> data, model, optimizer, callbacks, fit -> a run directory."""

import dataclasses
import os
import pathlib
import sys
from typing import NamedTuple

import keras

from vae_tf import runs
from vae_tf.callbacks import RunRecorder, restore
from vae_tf.config import Config, UserError, read_run
from vae_tf.data import Data
from vae_tf.vae import VAE

# Between two returns to Python, which cost as much as a small step.
STEPS_PER_EXECUTION = 32


class Run(NamedTuple):
    """A finished run: where it lies, the model of its best epoch, and a row of
    metrics per epoch.
    """

    run_dir: pathlib.Path
    vae: VAE
    history: list[dict[str, float]]


def train(config: Config) -> Run:
    """Trains the model that `config` describes, and writes it to a run
    directory.

    Raises:
      UserError: the dataset is out of reach or does not suit the likelihood,
        the run directory is in use or cannot be written, or (`resume`) holds no
        run of this configuration. Nothing has been written then.
    """
    keras.utils.set_random_seed(config.seed)
    if config.resume:
        config = _resumed(config)
    elif (
        config.run_dir
        and os.path.isdir(config.run_dir)
        and os.listdir(config.run_dir)
    ):
        raise UserError(
            "--run_dir: expected a new or empty directory, received "
            f"{config.run_dir!r}, which is not empty "
            "(--resume goes on with the run in it)."
        )
    data = runs.load_data_of(config)
    config = dataclasses.replace(
        config, dataset=data.source.name, binarization=data.binarization
    )
    vae = runs.build(config, data.image_shape)
    steps_per_epoch = len(data.train)
    vae.compile(
        optimizer=_optimizer(config, steps_per_epoch),
        # XLA halves the step of a multilayer perceptron on a CPU.
        jit_compile=True if config.jit_compile is None else config.jit_compile,
        steps_per_execution=min(STEPS_PER_EXECUTION, steps_per_epoch),
    )
    vae.optimizer.build(vae.trainable_variables)
    if config.resume:
        # Not the name of a link such as runs/latest, which is made anew.
        run_dir = pathlib.Path(config.run_dir).resolve()
        if read_run(run_dir)["data"]["checksum"] != data.describe()["checksum"]:
            raise UserError(
                f"--resume: expected the data of {run_dir}, received "
                f"{data.source.variant} that differs."
            )
        history = restore(run_dir, vae)
    else:
        run_dir, history = runs.create(config), []
    if not history:
        vae.adapt(data.train)
    config = dataclasses.replace(config, run_dir=str(run_dir), resume=False)
    runs.write_config(run_dir, config, data)
    runs.point_latest_to(run_dir)

    recorder = RunRecorder(
        run_dir, data.start_epoch, history, config.early_stopping_patience
    )
    vae.fit(
        data.train,
        validation_data=data.validation,
        initial_epoch=len(history),
        epochs=len(history) if recorder.out_of_patience() else config.epochs,
        callbacks=[recorder],
        verbose=1
        if sys.stdout.isatty()
        else 2,  # A bar for a person, a line per epoch for a log.
    )
    vae.load_weights(run_dir / runs.BEST_WEIGHTS)
    _report(run_dir, config, data, recorder.history)
    return Run(run_dir, vae, recorder.history)


def _optimizer(config: Config, steps_per_epoch: int) -> keras.Optimizer:
    steps = config.epochs * steps_per_epoch
    rate = config.learning_rate
    schedule = {
        "constant": rate,
        "cosine": keras.optimizers.schedules.CosineDecay(rate, steps),
        "exponential": keras.optimizers.schedules.ExponentialDecay(
            rate, steps, 0.01
        ),
    }[config.lr_schedule]
    optimizer = {
        "adam": keras.optimizers.Adam,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }[config.optimizer]
    return optimizer(schedule)


def _resumed(config: Config) -> Config:
    """`config` with what it leaves unset taken from the run that it resumes,
    and nothing else changed.
    """
    if not config.run_dir:
        raise UserError(
            "--resume: expected --run_dir with the run to go on with, received "
            "none."
        )
    saved = Config.load(config.run_dir)
    for field in dataclasses.fields(config):
        ours, theirs = getattr(config, field.name), getattr(saved, field.name)
        if (
            field.name not in Config.RESUMABLE
            and ours is not None
            and ours != theirs
        ):
            raise UserError(
                f"--{field.name}: expected {theirs!r}, with which the run in "
                f"{config.run_dir} began, "
                f"received {ours!r} with --resume."
            )
    changes = {name: getattr(config, name) for name in Config.RESUMABLE}
    return dataclasses.replace(saved, **changes)


def _report(
    run_dir: pathlib.Path,
    config: Config,
    data: Data,
    history: list[dict[str, float]],
) -> None:
    top = runs.best(history)
    bits = (
        "binary data"
        if data.source.levels == 2
        else f"binarization {data.binarization}"
    )
    print(
        f"Best validation ELBO {top['val_elbo']:.2f} nats per image at epoch "
        f"{top['epoch']} of {len(history)} "
        f"({data.source.variant}, {bits}) after {history[-1]['seconds']:.0f} "
        f"s, in {run_dir}. "
        f"Next: python evaluate.py --run_dir {run_dir}; python export.py "
        f"--run_dir {run_dir}"
    )
