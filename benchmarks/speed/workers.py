"""Training steps of one process on one core, and of two workers that share each
batch on two cores; validation, pictures and files are left out.

python -m benchmarks.speed.workers --batch_sizes 256 4096 16384"""

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time

import keras

from vae_tf import command_line
from vae_tf.config import Config
from vae_tf.runs import building, training, workers
from vae_tf.settings import Settings, setting

ME = "VAE_TF_BENCHMARK_BATCH"  # set for a process that trains


@dataclasses.dataclass(frozen=True)
class Workers(Settings):
    batch_sizes: tuple[int, ...] = setting(
        (256, 4096, 16384), "images a step, of all workers together"
    )
    network: str = setting("mlp", "", choices=("mlp", "conv"))
    epochs: int = setting(4, "of which the first is left out", minimum=2)
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch's steps."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.end = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self.end - self.start)


def train(settings: Workers, batch_size: int) -> None:
    """What each process does; the first one prints what it took."""
    config = Config(
        dataset="binarized_mnist",
        data_dir=settings.data_dir,
        latent_dim=40,
        network=settings.network,
        batch_size=batch_size,
        strategy="multi_worker" if "TF_CONFIG" in os.environ else "one_device",
        run_dir="unused",
    )
    strategy = workers.strategy_of(config)
    data = building.load_data_of(config)
    with strategy.scope():
        vae = building.build(config, data.describe())
        vae.compile(
            keras.optimizers.Adam(1e-3),
            steps_per_execution=training.steps_per_execution(data),
        )
    clock = Clock()
    vae.fit(data.train, epochs=settings.epochs, verbose=0, callbacks=[clock])
    if workers.is_chief(strategy):
        seconds = statistics.median(clock.seconds[1:])
        count = sum(value.numpy().size for value in vae.trainable_variables)
        print(json.dumps([seconds, len(data.train), 4 * count]))


def measured(number: int, batch_size: int) -> tuple[float, int, int]:
    """Seconds of an epoch, its steps, and the bytes of the gradients."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(number):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        environment = {"TF_NUM_INTRAOP_THREADS": "1", ME: str(batch_size)}
        if number > 1:
            environment["TF_CONFIG"] = json.dumps(cluster)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.speed.workers"]
                + sys.argv[1:],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        if number == 1:
            os.sched_setaffinity(processes[0].pid, {0})
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{number} of batch size {batch_size} failed")
    return tuple(json.loads(printed[0].splitlines()[-1]))


def main(given):
    settings = Workers(**given)
    if ME in os.environ:
        train(settings, int(os.environ[ME]))
        return
    print(
        "| images a step | one process, one core | two workers | images per "
        "second, ratio | bytes of gradients |\n|---|---|---|---|---|"
    )
    for batch_size in settings.batch_sizes:
        one, steps, size = measured(1, batch_size)
        two, _, _ = measured(2, batch_size)
        print(
            f"| {batch_size:,} | {1000 * one / steps:.1f} ms | "
            f"{1000 * two / steps:.1f} ms | {one / two:.2f} | {size:,} |",
            flush=True,
        )


if __name__ == "__main__":
    command_line.run(Workers, main, __doc__)
