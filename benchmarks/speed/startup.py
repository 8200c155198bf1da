"""How long a user waits before anything happens: `--help`, imports, the data,
the first step of training.

python -m benchmarks.speed.startup

Each figure is the median over fresh processes; "first" decodes the dataset,
"second" finds it decoded."""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.shared.commands import ROOT
from vae_tf import command_line
from vae_tf.settings import Settings, setting

HELP = "import runpy; runpy.run_path('train.py', run_name='__main__')"
IMPORT = "import vae_tf; vae_tf.VAE"
LOAD = """
import time, vae_tf
vae_tf.VAE
start = time.perf_counter()
vae_tf.load_data({dataset!r})
print('SECONDS', time.perf_counter() - start)
"""
# The training command itself, left when its first steps begin, or have ended.
TRAIN = """
import os, sys, time
from vae_tf import command_line
from vae_tf.commands import train
with command_line.without_wrappers():
    import keras
    from vae_tf.vae import VAE

class Leave(keras.callbacks.Callback):
    def on_train_batch_{moment}(self, batch, logs=None):
        print('SECONDS', time.time() - {start}, flush=True)
        os._exit(0)

fit = VAE.fit
VAE.fit = lambda self, *args, callbacks=(), **kwargs: fit(
    self, *args, callbacks=[*callbacks, Leave()], **kwargs
)
train.train({'latent_dim': 2, 'dataset': {dataset!r}})
"""


@dataclasses.dataclass(frozen=True)
class Startup(Settings):
    dataset: str = setting("mnist", "a prepared dataset")
    repetitions: int = setting(3, "processes per figure", minimum=1)


def seconds(code: str, cache: str, *arguments: str) -> float:
    """Of the whole process, or what it says itself."""
    start = time.time()
    with tempfile.TemporaryDirectory() as directory:
        for name in ("train.py", "vae_tf"):
            os.symlink(ROOT / name, f"{directory}/{name}")
        result = subprocess.run(
            [sys.executable, "-c", code.replace("{start}", str(start))]
            + list(arguments),
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache},
            capture_output=True,
            text=True,
        )
    whole = time.time() - start
    if result.returncode:
        sys.exit(result.stderr)
    said = [
        line for line in result.stdout.splitlines() if line[:7] == "SECONDS"
    ]
    return float(said[0].split()[1]) if said else whole


def main(given):
    settings = Startup(**given)
    load = LOAD.replace("{dataset!r}", repr(settings.dataset))
    train = TRAIN.replace("{dataset!r}", repr(settings.dataset))
    begin = train.replace("{moment}", "begin")
    end = train.replace("{moment}", "end")
    print("| what | first, s | second, s |")
    print("|---|---|---|")
    for name, code, *arguments in (
        ("train.py --help", HELP, "--help"),
        ("import of every class", IMPORT),
        ("load_data", load),
        ("train.py: the first step begins", begin),
        ("train.py: the first 32 steps have ended", end),
    ):
        rows = []
        for _ in range(settings.repetitions):
            with tempfile.TemporaryDirectory() as cache:
                rows.append(
                    [seconds(code, cache, *arguments) for _ in range(2)]
                )
        first, second = map(statistics.median, zip(*rows, strict=True))
        print(f"| {name} | {first:.2f} | {second:.2f} |", flush=True)


if __name__ == "__main__":
    command_line.run(Startup, main, __doc__)
