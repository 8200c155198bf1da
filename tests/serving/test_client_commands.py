import io
import pathlib
import subprocess
import sys
from unittest import mock

import model_server
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from fakes import FAKES, WIRES, FakeRest, run_client
from PIL import Image

from vae_tf.serving.client import Client


class CommandsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (["sample", "--n=0"], "--n: expected an integer >= 1, received 0"),
        (["sample", f"--seed={2**63}"], "--seed: expected an integer >= -"),
        (["sample", "7"], "expected flags only.*received '7'"),
        (["status", "--n=3"], "Unknown command line flag 'n'"),
        (["sampel", "--n=3"], "expected one of sample, .*received 'sampel'"),
        ([], "command: expected one of sample, status, received ''"),
        (["status", "--url=localhost"], "--url: expected .*'localhost'"),
        (["status", "--version=1", "--label=a"], "label: expected one of"),
        (["status", "--version=-1"], "--version: expected an integer >= 0"),
        (["status", "--token_file=/none"], "--token_file: .*received '/none'"),
        (["status", "--ca_file=/none"], "ca_file: expected .*received '/none'"),
        (
            ["sample", "--seed", str(2**63 - 1), "--n=2"],
            f"seed: expected integers.*received.*({2**63}|float64)",
        ),
    )
    def test_a_mistake_is_one_line(self, arguments, message):
        code, out, err = run_client(*arguments)
        self.assertEqual((code, out), (2, ""))
        self.assertRegex(err, f"^ERROR: .*{message}.*\n$")

    @parameterized.parameters(
        # 22 times as large, so that a side has 64 pixels, and 2 between two.
        ("L", 1, (88, 66)),
        ("RGB", 16, (358, 270, 3)),
        ("RGB", 7, (268, 202, 3)),
        ("L", 3, (178, 134)),
    )
    def test_a_sheet_is_about_square(self, mode, n, shape):
        png = io.BytesIO()
        Image.new(mode, (3, 4), 255 if mode == "L" else (9, 8, 7)).save(
            png, "PNG"
        )
        path = pathlib.Path(self.create_tempdir().full_path) / "sheet"
        with mock.patch.object(
            Client, "sample_png", return_value=n * [png.getvalue()]
        ):
            code, _, _ = run_client("sample", f"--n={n}", f"--out={path}")
            self.assertEqual(code, 0)
            sheet = Image.open(path)
            self.assertEqual((sheet.mode, sheet.format), (mode, "PNG"))
            self.assertEqual(np.asarray(sheet).shape, shape)
            gone = path / "sheet.png"
            code, _, err = run_client("sample", f"--n={n}", f"--out={gone}")
        self.assertEqual(code, 2)
        self.assertRegex(err, f"^ERROR: --out: expected .*'{gone}'.*\n$")

    def test_an_interrupted_sheet_leaves_the_old_one(self):
        png = io.BytesIO()
        Image.new("L", (3, 4)).save(png, "PNG")

        def fill_the_disk(image, path, kind):
            pathlib.Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        path = pathlib.Path(self.create_tempdir().full_path) / "sheet.png"
        path.write_bytes(b"old")
        with (
            mock.patch.object(
                Client, "sample_png", return_value=[png.getvalue()]
            ),
            mock.patch.object(Image.Image, "save", fill_the_disk),
        ):
            code, _, err = run_client("sample", "--n=1", f"--out={path}")
        self.assertEqual(code, 2)
        self.assertRegex(err, "^ERROR: --out: expected .*No space left.*\n$")
        self.assertEqual(path.read_bytes(), b"old")
        self.assertEqual([path], list(path.parent.iterdir()))

    def test_without_a_server_it_is_one_line_and_needs_no_tensorflow(self):
        (port,) = model_server._free_ports(1)
        code = (
            "import sys\n"
            "from vae_tf.serving import client\n"
            "try:\n"
            "    client.main()\n"
            "finally:\n"
            "    assert not {'tensorflow', 'keras', 'grpc'} & set(sys.modules)"
        )
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                "status",
                f"--url=http://127.0.0.1:{port}",
            ],
            capture_output=True,
            text=True,
        )
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertRegex(
            result.stderr,
            f"^ERROR: http://127.0.0.1:{port}: expected .*refused.*\n$",
        )

    def test_help(self):
        for arguments, words in (
            (["--help"], "client sample --n 16"),
            (["sample", "--help"], "--seed: seed of the first"),
        ):
            result = subprocess.run(
                [sys.executable, "-m", "vae_tf.serving.client", *arguments],
                capture_output=True,
                text=True,
            )
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn(words, result.stdout)

    @parameterized.parameters(*WIRES)
    def test_status_says_why_a_version_failed(self, wire):
        fake = FAKES[wire]({})
        fake.states = [("END", "NOT_FOUND", "no file\nvariables.index")]
        with fake.started() as url:
            code, out, err = run_client("status", f"--url={url}")
        self.assertEqual((code, err), (0, ""))
        line = "version 7: END (NOT_FOUND: no file variables.index)\n"
        self.assertEqual(out, line)

    def test_sends_a_token_from_a_file_and_asks_what_is_named(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "token"
        path.write_text("s3cret\n")
        fake = FakeRest({})
        with fake.started() as url:
            run_client(
                "status", f"--url={url}", f"--token_file={path}", "--version=7"
            )
        self.assertEqual(fake.headers[0]["authorization"], "Bearer s3cret")
        self.assertEqual(fake.places, ["/versions/7"])
