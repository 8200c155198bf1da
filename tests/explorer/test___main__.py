import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from unittest import mock

import pytest
import tensorflow as tf
from finished import FinishedRun

from vae_tf.explorer import __main__ as explorer
from vae_tf.settings import UserError

ROOT = pathlib.Path(__file__).parents[2]


class CommandTest(FinishedRun):
    def started(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "vae_tf.explorer", *arguments],
            cwd=self.finished.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @pytest.mark.slow
    def test_a_run_is_shown_until_ctrl_c(self):
        process = self.started(
            f"--run_dir={self.finished}", "--port=0", "--nobrowser"
        )
        self.addCleanup(process.kill)
        lines = [process.stdout.readline() for _ in range(2)]
        address = re.search(r"http://127.0.0.1:\d+", lines[1]).group()
        with urllib.request.urlopen(f"{address}/model") as reply:
            found = json.load(reply)
        self.assertEqual(found["source"], str(self.finished))
        self.assertEqual(found["image_shape"], [8, 8, 1])
        self.assertEqual(found["likelihood"], "bernoulli")
        self.assertEqual(found["prior"], "standard_normal")
        self.assertEqual(found["classes"], list(range(10)))
        self.assertTrue(found["are_held_out"])
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 0, process.stderr.read())

    def test_help_is_quick(self):
        started = time.monotonic()
        out, _ = self.started("--help").communicate()
        self.assertIn("--bundle", out)
        # Importing TensorFlow alone takes longer.
        self.assertLess(time.monotonic() - started, 5)

    def refused(self, words, **given):
        with self.assertRaisesRegex(UserError, words):
            explorer.explore({"browser": False, "port": 0} | given)

    def test_mistakes_are_one_line(self):
        self.refused("--run_dir: expected", run_dir="none")
        self.refused("--bundle: expected an exp", bundle=str(self.finished))
        self.refused("expected one of --bundle and --url", bundle="x", url="y")
        self.refused("url: expected http", url="127.0.0.1:8501")
        self.refused("--bundle: expected an exp", bundle="")
        self.refused("--version: expected with --url", version=3)
        self.refused("--token_file: expected with", bundle="x", token_file="y")
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            self.refused("--port: expected a free one", port=port)
            # Who listens there is no server.
            other.close()
            self.refused("expected an answer", url=f"http://127.0.0.1:{port}")
        with mock.patch.dict(sys.modules, {"uvicorn": None}):
            self.refused(r"pip install 'vae_tf\[explorer\]'", run_dir="none")


if __name__ == "__main__":
    tf.test.main()
