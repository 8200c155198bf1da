"""SIGKILL at random moments of a run, again and again: what resumes ends as
what nobody killed."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import directory

ROOT = pathlib.Path(vae_tf.__file__).parents[1]
TRAIN = ["-m", "vae_tf.commands.train"]
LAUNCH = ["-m", "vae_tf.runs.launch", "--workers=2", "--"]
FLAGS = (
    *("--dataset=digits", "--batch_size=16", "--hidden_units=16"),
    *("--figures_every=5", "--tensorboard=false"),
    # So that some states are those of the middle of an epoch.
    *("--checkpoint_minutes=0.002", "--jit_compile=false"),
)
KILLS, SECONDS = 20, 900


@pytest.mark.slow
class KillsTest(parameterized.TestCase, tf.test.TestCase):
    def start(self, command, *flags):
        process = subprocess.Popen(
            [sys.executable, *command, *FLAGS, *flags],
            cwd=self.place,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(process.stdout.close)
        return process

    def finish(self, command, *flags):
        process = self.start(command, *flags)
        text, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 0, text)

    def states(self):
        """Names of what the run that is killed can resume from."""
        paths = (self.place / "cut" / "checkpoints").glob("epoch-*")
        return sorted(path.name for path in paths)

    def result(self, run_dir):
        weights = vae_tf.load(run_dir).get_weights()
        pictures = [
            (run_dir / "figures" / name).read_bytes()
            for name in ("posterior.gif", "prior_predictive.gif")
        ]
        rows = directory.read_metrics(run_dir)
        for row in rows:
            del row["seconds"]
        return [weight.tobytes() for weight in weights], pictures, rows

    @parameterized.named_parameters(
        ("one_process", TRAIN, 60, 0.5), ("two_workers", LAUNCH, 40, 1.5)
    )
    def test_ends_as_if_nobody_had_killed_it(self, command, epochs, longest):
        self.place = pathlib.Path(self.create_tempdir().full_path)
        command = [*command, f"--epochs={epochs}"]
        self.finish(command, "--run_dir=whole")
        expected = self.result(self.place / "whole")
        draw, kills, moments, within = random.Random(0), 0, [], False
        while kills < KILLS:
            resume = ("--resume",) if moments else ()
            process = self.start(command, "--run_dir=cut", *resume)
            # Until it has come further, by some steps at least.
            before, wait = self.states(), time.monotonic() + SECONDS
            while self.states() == before and process.poll() is None:
                self.assertLess(time.monotonic(), wait)
                time.sleep(0.01)
            moments.append(draw.uniform(0, longest))
            time.sleep(moments[-1])
            # Of a launcher: one of its workers, chief or not.
            victims = [process.pid]
            if command[: len(LAUNCH)] == LAUNCH:
                found = subprocess.run(
                    ["pgrep", "--parent", str(process.pid)],
                    capture_output=True,
                    text=True,
                ).stdout.split()
                victims = [int(draw.choice(found))] if found else []
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            text, _ = process.communicate(timeout=SECONDS)
            if process.returncode == 0:
                break  # It had ended before.
            kills += 1
            within |= any("-step-" in name for name in self.states())
        self.assertGreaterEqual(kills, KILLS, "the run is too short")
        self.assertTrue(within, "no state was of the middle of an epoch")
        for path in (self.place / "cut").rglob(".*"):
            os.utime(path, (0, 0))  # Nobody writes it any more.
        self.finish(command, "--run_dir=cut", "--resume")
        self.assertEqual(self.result(self.place / "cut"), expected)
        left = [path.name for path in (self.place / "cut").rglob(".*")]
        self.assertEqual([name for name in left if name != ".lock"], [])


if __name__ == "__main__":
    tf.test.main()
