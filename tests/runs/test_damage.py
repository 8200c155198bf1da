"""Every file of a run x every damage x everything that reads a run: one clear
line, or the numbers of the whole run."""

import contextlib
import pathlib
import shutil
import tempfile
import warnings

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from test_training import CONFIG, Killed

import vae_tf
from vae_tf.runs import checkpoints, directory, report

SETTINGS = vae_tf.config.dataclasses.asdict(CONFIG) | {"figures_every": 1}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def flip_early(path):
    content = bytearray(path.read_bytes())
    content[min(5, len(content) - 1)] ^= 0x10
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


def make_directory(path):
    path.unlink()
    path.mkdir()


DAMAGES = (flip, flip_early, truncate, empty, delete, make_directory)


@pytest.mark.slow
class DamageTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.home)
        # A run killed in its last epoch, and what it would have been.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls.whole = vae_tf.train(cls.config(cls.home / "whole"))
            with contextlib.suppress(Killed):
                cls.cut()
        cls.run_dir = cls.home / "cut"
        cls.measured = cls.evaluate(cls.run_dir)
        report.report_run(cls.run_dir)
        images = vae_tf.load_data("digits").source.images["test"][:4]
        cls.images = (images / 16 > 0.5).astype(np.float32)
        cls.reconstructed = vae_tf.load(cls.run_dir).reconstruct(cls.images)

    @classmethod
    def config(cls, run_dir, **changes):
        return vae_tf.Config(**SETTINGS | {"run_dir": str(run_dir)} | changes)

    @classmethod
    def cut(cls):
        calls = []
        write = checkpoints.write

        def kill(*args):
            calls.append(args)
            if len(calls) == 3:
                raise Killed
            write(*args)

        checkpoints.write = kill
        try:
            vae_tf.train(cls.config(cls.home / "cut"))
        finally:
            checkpoints.write = write

    @staticmethod
    def evaluate(run_dir):
        return vae_tf.evaluate_run(run_dir, "test", 5, num_examples=20)

    def test_no_damaged_file_becomes_a_number(self):
        files = sorted(
            path.relative_to(self.run_dir)
            for path in self.run_dir.rglob("*")
            if path.is_file() and "tensorboard" not in path.parts
        )
        refused, wrong = 0, []
        for file in files:
            for damage in DAMAGES:
                acts = [self.resumes, self.measures, self.reports]
                # The slowest, which reads nothing below the run itself.
                acts += [self.exports] * (len(file.parts) == 1)
                for act in acts:
                    place = self.home / "damaged"
                    shutil.copytree(self.run_dir, place)
                    damage(place / file)
                    what = f"{file}, {damage.__name__}, {act.__name__}"
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            act(place)
                    except vae_tf.UserError as error:
                        refused += 1
                        self.assertRegex(str(error), "expected .* received")
                    except Exception as error:
                        wrong.append(f"{what}: {type(error).__name__} {error}")
                    shutil.rmtree(place)
        self.assertEmpty(wrong, "\n".join(wrong))
        self.assertGreater(refused, 10)

    def resumes(self, run_dir):
        run = vae_tf.train(self.config(run_dir, resume=True))
        for ours, theirs in zip(
            run.vae.get_weights(), self.whole.vae.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        for row, expected in zip(run.history, self.whole.history, strict=True):
            assert row | {"seconds": 0} == expected | {"seconds": 0}
        assert directory.read_metrics(run_dir) == run.history

    def measures(self, run_dir):
        assert self.evaluate(run_dir) == self.measured

    def exports(self, run_dir):
        path = vae_tf.export_run(run_dir, run_dir / "bundle")
        client = tf.saved_model.load(str(path))
        found = client.signatures["reconstruct"](image=self.images)["image"]
        np.testing.assert_allclose(found, self.reconstructed, atol=1e-5)
        manifest = (path / "assets.extra/manifest.json").read_text()
        elbo = f'"elbo": {self.measured["elbo"]!r}'
        assert elbo in manifest or '"test": null' in manifest, manifest

    def reports(self, run_dir):
        page = report.report_run(run_dir).read_text()
        top = directory.best(directory.read_metrics(run_dir) or [])
        assert f"{top['val_elbo']:.2f} nats" in page


if __name__ == "__main__":
    tf.test.main()
