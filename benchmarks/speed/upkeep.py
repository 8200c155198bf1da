"""An epoch as a user of `train.py` has it: what of it is training, what is
validation, and what goes to surviving, to health and to beginning and ending.

python -m benchmarks.speed.upkeep

What is written is written by a thread beside the next epoch, whose own time is
shown, and which training shares the processor with."""

import collections
import dataclasses
import itertools
import statistics
import tempfile
import time
from unittest import mock

import vae_tf
from vae_tf import command_line, executions
from vae_tf.runs import callbacks
from vae_tf.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Upkeep(Settings):
    epochs: int = setting(12, "of which two are left out", minimum=4)
    batch_size: int = setting(128, "images per step", minimum=1)
    dataset: str = setting("binarized_mnist", "a dataset as of train.py")
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def main(given):
    settings = Upkeep(**given)
    spent: collections.Counter = collections.Counter()
    after: list[dict] = []  # what had been spent at the end of each epoch

    def timed(part, function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - start

        return call

    loop, write = executions.compiled_loop, callbacks.RunRecorder._write
    end = callbacks.RunRecorder.on_epoch_end

    def timed_loop(model, own, read, step, *args):
        return timed(step.__name__, loop(model, own, read, step, *args))

    def end_of_epoch(recorder, *args, **kwargs):
        end(recorder, *args, **kwargs)
        after.append({"epoch": time.perf_counter(), **spent})

    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.object(executions, "compiled_loop", timed_loop),
        mock.patch.object(
            callbacks.RunRecorder, "_write", timed("writing", write)
        ),
        mock.patch.object(callbacks.RunRecorder, "on_epoch_end", end_of_epoch),
    ):
        vae_tf.train(
            vae_tf.Config(
                **dataclasses.asdict(settings),
                figures_every=0,
                run_dir=f"{place}/run",
            )
        )
    # The first epochs compile, and make what later ones have.
    rows = [
        {part: later[part] - earlier[part] for part in earlier}
        for earlier, later in itertools.pairwise(after[1:])
    ]
    parts = {part: statistics.median(r[part] for r in rows) for part in rows[0]}
    rest = parts["epoch"] - parts["train_step"] - parts["test_step"]
    print(
        f"| of an epoch of {1000 * parts['epoch']:.0f} ms | ms | share |\n"
        "|---|---|---|"
    )
    for name, seconds in (
        ("training", parts["train_step"]),
        ("validation", parts["test_step"]),
        ("all else", rest),
        ("all but training", rest + parts["test_step"]),
        ("written meanwhile by another thread", parts["writing"]),
    ):
        share = seconds / parts["epoch"]
        print(f"| {name} | {1000 * seconds:.1f} | {share:.1%} |")


if __name__ == "__main__":
    command_line.run(Upkeep, main, __doc__)
