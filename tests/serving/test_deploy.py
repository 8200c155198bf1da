"""The files around the server, and every request of docs/serving.md."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import model_server
import numpy as np
import pytest
import tensorflow as tf
import yaml
from absl.testing import parameterized
from finished import FinishedRun
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.config import model_server_config_pb2

import vae_tf

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PORTS = (8500, 8501)  # of docs/serving.md


class FilesTest(tf.test.TestCase):
    def test_the_model_s_config_is_the_server_s_own(self):
        config = text_format.Parse(
            (DEPLOY / "model.config").read_text(),
            model_server_config_pb2.ModelServerConfig(),
        )
        (model,) = config.model_config_list.config
        self.assertEqual(model.name, "vae")
        self.assertEqual(model.base_path, "/models/vae")

    def test_compose_mounts_what_its_server_reads(self):
        content = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
        self.assertEqual(set(content["services"]), {"vae", "vae-gpu"})
        for name, service in content["services"].items():
            places = {
                target: DEPLOY / source
                for source, target, _ in (
                    volume.split(":") for volume in service["volumes"]
                )
            }
            self.assertTrue((places["/models"] / "README.md").is_file())
            for flag in service["command"]:
                value = flag.split("=")[1]
                if value.startswith("/config/"):
                    file = places["/config"] / pathlib.Path(value).name
                    self.assertTrue(file.is_file(), flag)
            # To this machine alone.
            for port in service["ports"]:
                self.assertStartsWith(port, "127.0.0.1:")
            self.assertEqual("gpu" in service["image"], name == "vae-gpu")

    def test_kserve_asks_for_what_we_export(self):
        content = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())
        model = content["spec"]["predictor"]["model"]
        self.assertEqual(model["modelFormat"]["name"], "tensorflow")
        self.assertEqual(model["runtimeVersion"], "2.20.0")


class ServeScriptTest(tf.test.TestCase):
    """serve.sh where there is nothing to serve, or nothing to serve it."""

    def run_script(self, *versions):
        root = pathlib.Path(self.create_tempdir().full_path)
        shutil.copytree(DEPLOY, root / "deploy")
        for version in versions:
            (root / "saved_models/vae" / version).mkdir(parents=True)
        # A PATH with no server and no docker on it.
        tools = root / "tools"
        tools.mkdir()
        for name in ("bash", "env", "dirname", "ls", "grep", "cat"):
            (tools / name).symlink_to(shutil.which(name))
        return subprocess.run(
            [root / "deploy/serve.sh"],
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
        )

    def test_says_what_to_export(self):
        for versions in ((), (".unpublished-1", "latest")):
            result = self.run_script(*versions)
            self.assertEqual(result.returncode, 2)
            self.assertRegex(result.stderr, "^ERROR: .*python export.py")

    def test_says_what_to_install(self):
        result = self.run_script("1")
        self.assertEqual(result.returncode, 2)
        first, *rest = result.stderr.splitlines()
        self.assertStartsWith(first, "ERROR: expected tensorflow_model_server")
        self.assertRegex(" ".join(rest), "tensorflow-model-server.*docker")


class DocsTest(parameterized.TestCase, FinishedRun):
    """docs/serving.md from a trained model to a picture, as it is written."""

    changes = {"epochs": 1}

    @parameterized.parameters(*model_server.SERVERS)
    @pytest.mark.slow
    def test_every_request_is_answered(self, server):
        command = model_server.command(server)
        for tool in ("bash", "curl", "python3"):
            if not shutil.which(tool):
                self.skipTest(f"{tool}, in which docs/serving.md speaks")
        for port in PORTS:
            with contextlib.closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    self.skipTest(f"port {port} of docs/serving.md is taken")
        # The project's directory, with a model in it.
        root = pathlib.Path(self.create_tempdir().full_path)
        for name in ("deploy", "vae_tf"):
            (root / name).symlink_to(ROOT / name)
        (root / "deploy").unlink()
        shutil.copytree(DEPLOY, root / "deploy")
        vae_tf.export_run(self.finished, root / "saved_models/vae")
        launcher = root / "tensorflow_model_server"
        launcher.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        launcher.chmod(0o755)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "TENSORFLOW_MODEL_SERVER": str(launcher),
            "PATH": f"{pathlib.Path(sys.executable).parent}:"
            + os.environ["PATH"],
        }
        process = subprocess.Popen([root / "deploy/serve.sh"], env=environment)
        try:
            self.wait(process)
            answers = self.run_page(root, environment)
        finally:
            process.terminate()
            process.wait()
        self.check(answers, root)

    def wait(self, process):
        running = model_server.Server("http://127.0.0.1:8501", "", process)
        running.wait(1)

    def run_page(self, root, environment):
        """Runs the page's blocks; returns each with what it printed."""
        page = (ROOT / "docs/serving.md").read_text()
        answers = []
        for language, block in re.findall(r"(?s)```(\w+)\n(.*?)```", page):
            if language == "python":
                parts = [[sys.executable, "-c", block]]
            else:
                # A line that ends in a pipe goes on in the next.
                lines = re.split(r"\n(?=\S)", block.strip())
                parts = [["bash", "-ec", line] for line in lines]
            for part in parts:
                result = subprocess.run(
                    part,
                    cwd=root,
                    env=environment,
                    capture_output=True,
                    text=True,
                )
                self.assertEqual(
                    result.returncode, 0, f"{part}\n{result.stderr}"
                )
                answers.append((part[-1], result.stdout))
        return answers

    def check(self, answers, root):
        status, decoded, sampled, mistake = (
            json.loads(printed)
            for line, printed in answers
            if line.startswith("curl") and " > " not in line
        )
        self.assertEqual(
            status["model_version_status"][0]["state"], "AVAILABLE"
        )
        vae = vae_tf.load(self.finished)
        z = np.array([[0.0, 0.0], [1.5, -0.5]], np.float32)
        self.assertAllClose(
            decoded["predictions"], vae.decoder(z).mean(), atol=1e-5
        )
        for row in sampled["predictions"]:
            self.assertAllClose(
                row["mean"],
                vae.decoder(np.float32([row["z"]])).mean()[0],
                atol=1e-5,
            )
        self.assertRegex(mistake["error"], r"\[1,3\].*\[\?,2\]")
        # What curl, the command line and Python say of it.
        told = [text for _, text in answers if "AVAILABLE" in text]
        self.assertLen(told, 3)
        self.assertEqual(Image.open(root / "sample.png").size, (8, 8))
        self.assertEqual(Image.open(root / "s.png").size, (32, 32))
