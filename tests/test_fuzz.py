"""Files that were mutated at random: what reads them gives something, or one
clear error, and never a traceback."""

import contextlib
import hashlib
import itertools
import json
import pathlib
import random
import resource
import shutil
import tempfile
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from finished import FinishedRun
from PIL import Image
from small import small_vae

import vae_tf
from vae_tf.config import Config
from vae_tf.runs import directory, reading, sums
from vae_tf.serving import check

SECONDS = 75  # of each kind of file
MEMORY = 16 * 2**30  # so that a size of 10^12 is refused by the machine, too
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3, 0.5, -0.0, 2**31, 2**63, 10**400),
    *(float("nan"), float("inf"), 1e308, "", "a", "mean_field", "\x00é\n"),
    *([], [0], [1, "a"], {}, {"a": 1}, [[[]]]),
)


def mutated(content, draw):
    """Bytes with some of them changed, left out or put in."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(content) + 1)
        end = min(start + draw.choice((1, 1, 4, 40)), len(content))
        new = draw.randbytes(draw.choice((0, 1, end - start, 8)))
        content[start:end] = draw.choice((new, content[end : end + 9], b"\0"))
    return bytes(content)


def mutated_json(values, draw):
    """A nest with one of its values, or names, changed."""
    values = json.loads(json.dumps(values))
    places = []

    def walk(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(values)
    for _ in range(draw.choice((1, 1, 2, 4))):
        node, key = draw.choice(places)
        with contextlib.suppress(KeyError, IndexError):
            old = node[key]
            if draw.random() < 0.2:
                del node[key]
            elif isinstance(node, dict) and draw.random() < 0.1:
                node[f"{key}x"] = node.pop(key)
            else:
                node[key] = draw.choice((*VALUES, [old], str(old)))
    text = json.dumps(values).encode()
    return mutated(text, draw) if draw.random() < 0.2 else text


@pytest.mark.slow
class FuzzTest(FinishedRun):
    def setUp(self):
        super().setUp()
        self.home = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_AS, limits)

    def fuzz(self, write, read, errors=vae_tf.UserError):
        end, refused, count = time.monotonic() + SECONDS, 0, 0
        for number in itertools.count():
            if time.monotonic() > end:
                break
            draw, count = random.Random(number), number + 1
            write(draw)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read()
                except errors as error:
                    refused += 1
                    self.assertIn("expected", str(error), number)
                except Exception as error:
                    raise AssertionError(f"seed {number}") from error
        print(f"{count} mutations, {refused} refused")
        self.assertGreater(count, 20)
        self.assertGreater(refused, 5)

    def test_config(self):
        run_dir = self.copy()
        path = run_dir / "config.json"
        values = json.loads(path.read_text())
        known = (run_dir / sums.SUMS).read_text().splitlines(keepends=True)

        def write(draw):
            path.write_bytes(mutated_json(values, draw))
            # A person who has edited the file has removed its line.
            kept = [x for x in known if "config.json" not in x]
            (run_dir / sums.SUMS).write_text("".join(kept))

        def read():
            Config.load(run_dir)
            reading.read_run(run_dir)
            vae_tf.load(run_dir)
            directory.load_data_of_run(run_dir)

        self.fuzz(write, read)

    def test_keras(self):
        path = self.home / "model.keras"
        small_vae().save(path)
        content = path.read_bytes()
        self.fuzz(
            lambda draw: path.write_bytes(mutated(content, draw)),
            lambda: vae_tf.load(path),
        )

    def test_folder(self):
        folder = self.home / "images"
        folder.mkdir()
        kinds = ("png", "jpg", "bmp", "gif", "tiff", "webp", "ppm")
        contents = []
        for number in range(14):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3))
            path = folder / f"{number}.{kinds[number % len(kinds)]}"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            contents.append((path, path.read_bytes()))

        def write(draw):
            shutil.rmtree(folder)
            folder.mkdir()
            for path, content in contents:
                if draw.random() < 0.3:
                    content = mutated(content, draw)
                if draw.random() < 0.1:
                    path = path.with_name(
                        draw.choice(("a\x1b[2J", "train", "é", ".x", "a b"))
                        + draw.choice((path.suffix, "", ".png", ".PNG"))
                    )
                path.write_bytes(content)

        self.fuzz(write, lambda: vae_tf.load_data(folder, image_size=8))

    def test_manifest(self):
        bundle = pathlib.Path(vae_tf.export(small_vae(), self.home / "bundle"))
        path = bundle / check.MANIFEST
        values = json.loads(path.read_bytes())

        def write(draw):
            content = mutated_json(values, draw)
            path.write_bytes(content)
            if draw.random() < 0.8:
                digest = hashlib.sha256(content).hexdigest()
                (bundle / check.SEAL).write_text(f"{digest}  {path.name}\n")

        self.fuzz(
            write, lambda: check.check_checksums(bundle), check.CheckError
        )


if __name__ == "__main__":
    tf.test.main()
