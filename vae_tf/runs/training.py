"""Config -> data, model, optimizer, callbacks, fit -> a run directory."""

import contextlib
import dataclasses
import math
import os
import pathlib
import shlex
import sys
import time
import warnings
from typing import NamedTuple, cast

import keras
import tensorflow as tf

from vae_tf.config import LIKELIHOODS, Config
from vae_tf.data.files import sweep
from vae_tf.data.pipeline import Data
from vae_tf.pictures import snapshots
from vae_tf.runs import checkpoints, directory, origin
from vae_tf.runs.averaging import AverageValidated
from vae_tf.runs.building import (
    build,
    filled,
    load_data_of,
    updates_per_step,
)
from vae_tf.runs.callbacks import Board, Pictures, RunRecorder
from vae_tf.runs.checkpoints import Progress
from vae_tf.runs.health import Diverged, Health
from vae_tf.runs.interruption import Interrupted, watched
from vae_tf.runs.lock import only_writer
from vae_tf.runs.reading import HEALTH, command
from vae_tf.runs.workers import any_of, is_chief, strategy_of
from vae_tf.settings import UserError
from vae_tf.vae import VAE

# Between two returns to Python, which cost as much as a small step; fewer where
# what they are made from would take more than so many bytes.
STEPS_PER_EXECUTION = 32
BLOCK = 2**24
VALIDATED = 2**20  # pixels of p(x|z) together
HALVINGS = 3  # of the step size of a training that diverges


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
    strategy = strategy_of(config)
    with contextlib.ExitStack() as stack:
        saved = origin.run_to_resume(config) if config.resume else None
        chief = is_chief(strategy)
        if saved:
            config = origin.filled_from(saved, config)
            # Not by the name of a link such as runs/latest, which is made anew.
            run_dir = pathlib.Path(cast(str, config.run_dir)).resolve()
            if chief:
                stack.enter_context(only_writer(run_dir))
        elif chief:
            directory.require_unused(config.run_dir)
        keras.utils.set_random_seed(config.seed)
        data = load_data_of(config)
        config = dataclasses.replace(
            config,
            dataset=data.source.name,
            binarization=data.binarization,
            dequantization=data.dequantization,
        )
        config = filled(config, data.describe())
        if saved:
            origin.require_unchanged(saved, config, data)
            origin.say_rate(saved, config)
        began = time.monotonic()
        vae = _compiled(config, data, strategy)
        if config.initial_run and not saved:
            origin.require_same_model(config, vae)
        if not saved and chief:
            run_dir = directory.create(config)
            stack.enter_context(only_writer(run_dir))
            # Again: another process may have begun, and ended, meanwhile.
            directory.require_unused(str(run_dir))
        elif not saved:
            run_dir = pathlib.Path(cast(str, config.run_dir))
        config = dataclasses.replace(config, run_dir=str(run_dir), resume=False)
        resumed, first_rate = saved is not None, config.learning_rate
        while True:
            try:
                return _trained(vae, config, data, resumed, began)
            except Diverged as diverged:
                config = _calmer(config, first_rate, diverged)
            # From the newest checkpoint, or the first weights, which are those
            # of the seed.
            resumed, began = True, time.monotonic()
            keras.utils.set_random_seed(config.seed)
            vae = _compiled(config, data, strategy)


def _calmer(config: Config, first_rate: float, diverged: Diverged) -> Config:
    """`config` with half the step size; raises UserError after so many halves
    that it is no help.
    """
    rate = config.learning_rate / 2
    if rate < first_rate / 2**HALVINGS:
        raise UserError(
            "--learning_rate: expected a step size at which training "
            f"converges, received {first_rate:.4g}, down to {2 * rate:.4g} of "
            f"which it does not: {diverged} What was kept is in "
            f"{config.run_dir}; --resume takes another --learning_rate."
        )
    warnings.warn(
        f"{diverged} Training goes back to what was kept last, and on with "
        f"--learning_rate {rate:.4g}.",
        stacklevel=3,
    )
    return dataclasses.replace(config, learning_rate=rate)


def _compiled(
    config: Config, data: Data, strategy: tf.distribute.Strategy
) -> VAE:
    """The untrained model of a run."""
    steps = cast(int, config.epochs) * len(data.train)
    with strategy.scope():
        vae = build(config, data.describe())
        vae.compile(
            optimizer=_optimizer(config, steps * updates_per_step(config)),
            jit_compile="auto"
            if config.jit_compile is None
            else config.jit_compile,
            steps_per_execution=steps_per_execution(data),
        )
        vae.optimizer.build(vae.optimized_variables)
    return vae


def _trained(
    vae: VAE, config: Config, data: Data, resumed: bool, began: float
) -> Run:
    """The run in `config.run_dir`, which nobody else writes."""
    run_dir = pathlib.Path(cast(str, config.run_dir))
    epochs = cast(int, config.epochs)
    strategy = vae.distribute_strategy
    chief = is_chief(strategy)  # the one that writes
    if chief:
        sweep(run_dir)
    progress = Progress([])
    if resumed:
        progress = checkpoints.restore(run_dir, vae, writes=chief)
    finished = len(progress.history)
    if finished + bool(progress.step) > epochs:
        raise UserError(
            f"--epochs: expected at least the {finished} epochs that the "
            f"run has finished, received {epochs}."
        )
    if not (finished or progress.step):
        if config.initial_run:
            directory.load_best(pathlib.Path(config.initial_run), vae)
        else:
            vae.adapt(data.train)
    if chief:
        directory.write_config(run_dir, config, data)
        directory.point_latest_to(run_dir)

    with watched() as asked:
        board = []
        if config.tensorboard and chief:
            board = [Board(run_dir / "tensorboard")]

        def say(line):
            if not chief:
                return
            warnings.warn(line, stacklevel=2)
            epoch = len(recorder.history) + 1
            with contextlib.suppress(OSError):  # A full disk, it may say.
                with open(run_dir / HEALTH, "a") as file:
                    # By its name: the report shows it to others.
                    short = line.replace(str(run_dir), run_dir.name)
                    file.write(f"epoch {epoch}: {short}\n")
            for each in board:
                each.say(line, epoch)

        def batches_from(step):
            # Of this epoch once more: the pass that trains has begun before.
            data.start_epoch(len(recorder.history))
            return data.after(step)

        health = Health(run_dir if chief else None, batches_from, say)
        recorder = RunRecorder(
            run_dir, config, data.start_epoch, progress, asked, began
        )
        pictures = []
        if config.figures_every and chief:
            held = snapshots.held_out(data)
            pictures = [
                Pictures(
                    run_dir,
                    held,
                    config.figures_every,
                    recorder.history,
                    progress.step > 0,
                    board[0] if board else None,
                    recorder.background,
                )
            ]

        held_images = validated(data, vae.objective.num_samples)
        average = [AverageValidated()] if config.ema_momentum else []

        def fit(images, until):
            vae.fit(
                images,
                validation_data=held_images,
                initial_epoch=len(recorder.history),
                epochs=until,
                callbacks=[*average, health, recorder, *pictures, *board],
                # A bar for a person, a line per epoch for a log.
                verbose=(1 if sys.stdout.isatty() else 2) if chief else 0,
            )

        try:
            if progress.step:  # first what is left of that epoch
                fit(data.after(progress.step), finished + 1)
            over = recorder.out_of_patience()
            fit(data.train, len(recorder.history) if over else epochs)
        except Interrupted as interrupted:
            again = f"{command('train', run_dir)} --resume"
            if strategy.cluster_resolver:
                again = f"the same workers with --run_dir {run_dir} --resume"
            interrupted.args = (
                f"Interrupted after {interrupted}, which are kept. To go on: "
                f"{again}"
                if chief
                else "Interrupted.",
            )
            raise
        finally:
            recorder.background.wait()
        for each in pictures:
            each.look_last()
        health.look_at_posterior(
            recorder.history[-1]["val_kl"],
            pictures[0].kl_per_dimension() if pictures else None,
        )
        bound = directory.bound(recorder.history)
        # Equally likely values: p = 1 / levels, or a density of 1 on [0, 1].
        density = LIKELIHOODS[config.likelihood] == "interval"
        levels = 1 if density else data.conversion.levels_after
        health.look_at_best(
            bound,
            directory.best(recorder.history)[bound],
            -math.prod(data.image_shape) * math.log(levels),
        )
    any_of(strategy, False)  # Once the chief has written all of them.
    directory.load_best(run_dir, vae)
    if not chief:
        return Run(run_dir, vae, recorder.history)
    if config.figures_every:
        from vae_tf.runs import report  # It draws, which no first step needs.

        report.redraw(run_dir, vae, held)
        report.write(run_dir)
    sweep(run_dir)
    _report(run_dir, data, config.likelihood, recorder.history)
    return Run(run_dir, vae, recorder.history)


def steps_per_execution(data: Data) -> int:
    """Training steps between two returns to Python."""
    # Of what waits for a step: numbers of rows in memory, or stored pixels.
    waits = data.train.in_step.elements.element_spec["stored"]
    batch = data.batch_size * math.prod(waits.shape[1:]) * waits.dtype.size
    return min(STEPS_PER_EXECUTION, len(data.train), max(BLOCK // batch, 1))


def validated(data: Data, num_samples: int) -> tf.data.Dataset:
    """The validation images, in equal batches as large as is fast and small
    enough for `num_samples` draws of each image.
    """
    if data.numbered:
        return data.validation
    count, pixels = data.num_examples["validation"], math.prod(data.image_shape)
    most = max(data.batch_size, VALIDATED // (pixels * num_samples))
    return data.in_order(
        "validation", math.ceil(count / math.ceil(count / most))
    )


def _optimizer(config: Config, steps: int) -> keras.Optimizer:
    """The optimizer of a training of so many updates."""
    rise = steps // 20
    rate = config.learning_rate
    schedule = {
        "constant": rate,
        # A warm-up, because large first steps make latents collapse for good.
        "cosine": keras.optimizers.schedules.CosineDecay(
            0.0, steps - rise, warmup_target=rate, warmup_steps=rise
        ),
        "exponential": keras.optimizers.schedules.ExponentialDecay(
            rate, steps, 0.01
        ),
    }[config.lr_schedule]
    optimizer = {
        "adam": keras.optimizers.Adam,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }[config.optimizer]
    if not config.ema_momentum:
        return optimizer(schedule)
    return optimizer(schedule, use_ema=True, ema_momentum=config.ema_momentum)


def _report(
    run_dir: pathlib.Path,
    data: Data,
    likelihood: str,
    history: list[dict[str, float]],
) -> None:
    """Prints what was reached, where it lies, and what comes next."""
    top = directory.best(history)
    bound = directory.bound(history)
    print(
        f"Best validation {bound.removeprefix('val_').upper()} "
        f"{top[bound]:.2f} nats per image at epoch {top['epoch']} of "
        f"{len(history)} ({data.source.variant}, {data.source.levels} grey "
        f"levels, likelihood {likelihood}, binarization {data.binarization}, "
        f"dequantization {data.dequantization}) after "
        f"{history[-1]['seconds']:.0f} s, in {shlex.quote(str(run_dir))}. "
        f"Next: {next_steps(run_dir)}"
    )


def next_steps(run_dir: str | os.PathLike) -> str:
    """The commands to go on with, as whoever typed this one has them."""
    return "; ".join(command(name, run_dir) for name in ("evaluate", "export"))
