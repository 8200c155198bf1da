"""What a default run pays, per epoch, for surviving and for its health: states
to resume from, best weights, metrics and health; the lock is taken once.

python -m benchmarks.speed.upkeep"""

import collections
import dataclasses
import itertools
import statistics
import tempfile
import time
from unittest import mock

import vae_tf
from vae_tf import command_line
from vae_tf.runs import callbacks, health
from vae_tf.settings import Settings, setting

PARTS = {
    "states to resume from": ((callbacks.RunRecorder, "_keep"),),
    "best weights": ((callbacks, "save_best"),),
    "metrics.csv": ((callbacks, "write_metrics"),),
    "health": tuple(
        (health.Health, name)
        for name in (
            "on_epoch_begin",
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_epoch_end",
        )
    ),
}


@dataclasses.dataclass(frozen=True)
class Upkeep(Settings):
    epochs: int | None = setting(
        None, "of which the first is left out (unset: train.py's)", minimum=3
    )
    dataset: str = setting("mnist", "a dataset as of train.py")
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def timed(spent, part, owner, name):
    """`owner.name`, whose seconds are added to what `part` has spent."""
    inner = getattr(owner, name)

    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - start

    return mock.patch.object(owner, name, call)


def main(given):
    settings = Upkeep(**given)
    spent: collections.Counter = collections.Counter()
    before, epochs = dict.fromkeys(PARTS, 0.0), {part: [] for part in PARTS}
    out_of_patience = callbacks.RunRecorder.out_of_patience

    def end_of_epoch(recorder):
        for part in PARTS:
            epochs[part].append(spent[part] - before[part])
        before.update(spent)
        return out_of_patience(recorder)

    with tempfile.TemporaryDirectory() as place:
        for part, calls in PARTS.items():
            for owner, name in calls:
                timed(spent, part, owner, name).start()
        patched = mock.patch.object(
            callbacks.RunRecorder, "out_of_patience", end_of_epoch
        )
        with patched:
            run = vae_tf.train(
                vae_tf.Config(
                    dataset=settings.dataset,
                    data_dir=settings.data_dir,
                    epochs=settings.epochs,
                    run_dir=f"{place}/run",
                )
            )
        mock.patch.stopall()
    ends = [row["seconds"] for row in run.history]
    epoch = statistics.mean(
        after - before for before, after in itertools.pairwise(ends[1:])
    )
    print(
        f"| of an epoch of {1000 * epoch:.0f} ms | ms | share |\n|---|---|---|"
    )
    total = 0.0
    for part, seconds in epochs.items():
        # After what is asked before the first epoch, and that epoch.
        mean = statistics.mean(seconds[2:])
        total += mean
        print(f"| {part} | {1000 * mean:.1f} | {mean / epoch:.2%} |")
    print(f"| all | {1000 * total:.1f} | {total / epoch:.2%} |")


if __name__ == "__main__":
    command_line.run(Upkeep, main, __doc__)
