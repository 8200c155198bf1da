"""The files around the server, and every request of docs/serving.md."""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import model_server
import numpy as np
import pytest
import tensorflow as tf
import yaml
from absl.testing import parameterized
from finished import FinishedRun
from google.protobuf import text_format
from PIL import Image
from small import small_vae
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

import vae_tf
from vae_tf.serving import errors
from vae_tf.serving.client import Client

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
        services = content["services"]
        proxy = services.pop("proxy")
        self.assertEqual(set(services), {"vae", "vae-gpu"})
        for name, service in services.items():
            self.assertEqual(
                service["networks"]["default"]["aliases"], ["server"]
            )
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
        # The proxy alone is open to others, and starts when it is asked for.
        self.assertEqual(proxy["profiles"], ["proxy"])
        file = proxy["volumes"][0].split(":")[0]
        text = (DEPLOY / file).read_text()
        for variable in proxy["environment"]:
            self.assertIn("{$" + variable.split("=")[0], text)

    def test_kserve_asks_for_what_we_export(self):
        content = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())
        model = content["spec"]["predictor"]["model"]
        self.assertEqual(model["modelFormat"]["name"], "tensorflow")
        self.assertEqual(model["runtimeVersion"], "2.20.0")
        # The flags of compose, which fit, and the files that they name.
        compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
        flags = compose["services"]["vae"]["command"]
        self.assertEqual(
            set(flags) - set(model["args"]),
            {"--model_config_file=/config/model.config"},
        )
        (mount,) = model["volumeMounts"]
        (volume,) = content["spec"]["predictor"]["volumes"]
        self.assertEqual(mount["name"], volume["name"])
        header = (DEPLOY / "kserve.yaml").read_text().split("apiVersion")[0]
        self.assertIn(f"configmap {volume['configMap']['name']} ", header)
        for flag in model["args"]:
            if flag.split("=")[1].startswith(mount["mountPath"]):
                self.assertIn(f"--from-file={pathlib.Path(flag).name}", header)
        account = content["spec"]["predictor"]["serviceAccountName"]
        self.assertIn(f"serviceaccount {account} ", header)
        page = (ROOT / "docs/serving.md").read_text()
        self.assertIn(f"`{account}`", page)
        monitoring = (DEPLOY / "monitoring.config").read_text()
        path = content["metadata"]["annotations"]["prometheus.kserve.io/path"]
        self.assertIn(f'"{path}"', monitoring)


class ServeScriptTest(tf.test.TestCase):
    """serve.sh where there is nothing to serve, or nothing to serve it."""

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)
        shutil.copytree(DEPLOY, self.root / "deploy")
        # A PATH with no server and no docker on it.
        self.tools = self.root / "tools"
        self.tools.mkdir()
        for name in ("bash", "env", "dirname", "cat"):
            (self.tools / name).symlink_to(shutil.which(name))

    def export(self, *versions):
        for version in versions:
            path = self.root / "saved_models/vae" / version
            path.mkdir(parents=True)
            (path / "saved_model.pb").touch()

    def tool(self, name, script):
        path = self.tools / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)
        return path

    def run_script(self, **environment):
        return subprocess.run(
            [self.root / "deploy/serve.sh"],
            env={"PATH": str(self.tools), **environment},
            capture_output=True,
            text=True,
        )

    def assert_one_error(self, message, **environment):
        result = self.run_script(**environment)
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, rf"\AERROR: .*{message}.*\n\Z")

    def test_says_what_to_export(self):
        self.assert_one_error("python export.py")
        self.export(".unpublished-1", "latest", "1" * 20)
        self.assert_one_error("python export.py")

    def test_says_what_is_no_version(self):
        self.export("3", "007")
        five = self.root / "saved_models/vae/5"
        five.write_text("a file")
        self.assert_one_error("saved_models/vae/5: .* received a file")
        five.unlink()
        (self.root / "saved_models/vae/007/saved_model.pb").unlink()
        self.assert_one_error("saved_models/vae/007: .* saved_model.pb, rec")

    def test_says_what_to_install(self):
        self.export("1")
        result = self.run_script()
        self.assertEqual(result.returncode, 2)
        first, *rest = result.stderr.splitlines()
        self.assertStartsWith(first, "ERROR: expected tensorflow_model_server")
        self.assertRegex(" ".join(rest), "tensorflow-model-server.*docker")

    def test_a_server_that_was_named_is_the_only_one(self):
        self.export("1")
        self.tool("docker", "exit 0")
        self.tool("tensorflow_model_server", "exit 0")
        for wrong in ("tensorflow_modle_server", str(self.root), "cd"):
            self.assert_one_error(
                f"TENSORFLOW_MODEL_SERVER: .*received '{wrong}'",
                TENSORFLOW_MODEL_SERVER=wrong,
            )

    def test_docker_without_compose(self):
        self.export("1")
        self.tool("docker", "[[ $1 == info ]]")
        self.assert_one_error("docker: expected its plugin compose")

    def test_says_where_it_serves_and_to_whom(self):
        self.export("1")
        self.tool("docker", "echo docker $*")
        result = self.run_script()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, "(?s)http://127.*curl .*compose.* up")
        self.tool("tensorflow_model_server", "echo server $*")
        result = self.run_script()
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, "(?s)http://127.*curl .*server --port")
        lines = result.stderr.splitlines()
        self.assertTrue(all(line.startswith("WARNING: ") for line in lines))
        self.assertRegex(" ".join(lines), "every address.*deploy/Caddyfile")


@dataclasses.dataclass
class Proxy:
    """Caddy in front of a server; `url` without a scheme."""

    url: str
    ca_file: pathlib.Path


class ProxyTest(tf.test.TestCase):
    """deploy/Caddyfile as Caddy runs it, in front of the double."""

    TOKEN = "0123456789abcdef"

    def start(self, **environment):
        caddy = shutil.which("caddy") or os.environ.get("CADDY")
        if not caddy:
            self.skipTest("caddy is neither on PATH nor named by $CADDY")
        self.home = pathlib.Path(self.create_tempdir().full_path)
        self.log = (self.home / "log").open("w+")
        self.addCleanup(self.log.close)
        process = subprocess.Popen(
            [caddy, "run", "--config", str(DEPLOY / "Caddyfile")],
            env={"HOME": str(self.home), "XDG_DATA_HOME": str(self.home)}
            | environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        return process

    def proxy(self, server):
        (port,) = model_server._free_ports(1)
        process = self.start(
            VAE_HOST=f"localhost:{port}",
            VAE_TOKEN=self.TOKEN,
            VAE_GRPC=server.grpc,
            VAE_REST=server.rest.removeprefix("http://"),
        )
        ca_file = self.home / "caddy/pki/authorities/local/root.crt"
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                context = ssl.create_default_context(cafile=ca_file)
                connection = socket.create_connection(("localhost", port))
                with context.wrap_socket(
                    connection, server_hostname="localhost"
                ):
                    return Proxy(f"localhost:{port}", ca_file)
            time.sleep(0.1)
        self.log.seek(0)
        self.fail(self.log.read())

    @pytest.mark.slow
    def test_without_a_token_nothing_is_served(self):
        for environment in ({}, {"VAE_TOKEN": ""}):
            process = self.start(**environment)
            self.assertEqual(process.wait(10), 1)
            self.log.seek(0)
            self.assertRegex(self.log.read(), "Caddyfile.*after 'token'")

    @pytest.mark.slow
    def test_lets_in_who_has_the_token_and_no_further_than_the_model(self):
        directory = pathlib.Path(self.create_tempdir().full_path) / "vae"
        vae = small_vae()
        vae_tf.export(vae, directory)
        with model_server.serving(model_server.DOUBLE, directory) as server:
            proxy = self.proxy(server)
            context = ssl.create_default_context(cafile=proxy.ca_file)
            host, port = proxy.url.split(":")
            # Who says half a sentence is not listened to for ever.
            slow = context.wrap_socket(
                socket.create_connection((host, int(port))),
                server_hostname=host,
            )
            slow.sendall(b"GET /v1/models/vae HTTP/1.1\r\n")
            began = time.monotonic()
            self.assert_answers(proxy, vae)
            self.assert_refuses(proxy, context)
            self.assert_grpc_refuses(proxy)
            slow.settimeout(30)
            self.assertEqual(slow.recv(1), b"")
            self.assertLess(time.monotonic() - began, 30)
            slow.close()

    def assert_answers(self, proxy, vae):
        z = np.array([[0.0, 0.0], [1.5, -0.5]], np.float32)
        for scheme in ("https", "grpcs"):
            url = f"{scheme}://{proxy.url}"
            common = {"ca_file": proxy.ca_file, "retries": 0}
            with Client(url, token=self.TOKEN, **common) as client:
                self.assertEqual(client.status(), {1: "AVAILABLE"})
                self.assertAllClose(client.decode(z), vae.decoder(z).mean())
            for token in (None, self.TOKEN[:-1]):
                with (
                    Client(url, token=token, **common) as client,
                    self.assertRaisesRegex(
                        errors.ServingError, "(?i)401|token|unauthenticated"
                    ),
                ):
                    client.decode(z)

    def assert_refuses(self, proxy, context):
        def status(path, body=None, token=self.TOKEN):
            request = urllib.request.Request(
                f"https://{proxy.url}{path}",
                body,
                {"Authorization": f"Bearer {token}"} if token else {},
            )
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}),
                urllib.request.HTTPSHandler(context=context),
            )
            try:
                with opener.open(request, timeout=30) as reply:
                    return reply.status
            except urllib.error.HTTPError as error:
                with error:  # of the proxy, not of what is behind it
                    self.assertEqual(error.headers.get_all("Server"), ["Caddy"])
                    return error.code

        model = "/v1/models/vae"
        self.assertEqual(status(model), 200)
        self.assertEqual(status(model, token=None), 401)
        self.assertEqual(status(model, token="0"), 401)
        self.assertEqual(status("/monitoring/prometheus/metrics"), 404)
        self.assertEqual(status("/"), 404)
        body = b'{"instances": [[0.0, 0.0]]}'
        self.assertEqual(status(f"{model}:predict", body), 200)
        # Refused by what it says of its length; the rest is not waited for.
        for length, expected in ((10**8 - 1, 200), (10**8, 413)):
            connection = http.client.HTTPSConnection(
                proxy.url, timeout=30, context=context
            )
            connection.putrequest("POST", f"{model}:predict")
            connection.putheader("Authorization", f"Bearer {self.TOKEN}")
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            if expected == 200:
                connection.send(body.ljust(length))
            self.assertEqual(connection.getresponse().status, expected)
            connection.close()

    def assert_grpc_refuses(self, proxy):
        """What a client of the model has no need of, and seeds of int32."""
        common = {
            "metadata": (("authorization", f"Bearer {self.TOKEN}"),),
            "timeout": 30,
        }
        channel = grpc.secure_channel(
            proxy.url,
            grpc.ssl_channel_credentials(proxy.ca_file.read_bytes()),
        )
        with channel:
            service = model_service_pb2_grpc.ModelServiceStub(channel)
            with self.assertRaises(grpc.RpcError) as caught:
                service.HandleReloadConfigRequest(
                    model_management_pb2.ReloadConfigRequest(), **common
                )
            error = caught.exception
            self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
            self.assertIn("404", error.details())
            service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "vae"
            request.model_spec.signature_name = "sample"
            seed = request.inputs["seed"]
            seed.CopyFrom(tf.make_tensor_proto([1, 1], tf.int64))
            z = tf.make_ndarray(service.Predict(request, **common).outputs["z"])
            self.assertAllEqual(z[0], z[1])
            seed.CopyFrom(tf.make_tensor_proto([1, 1]))
            with self.assertRaises(grpc.RpcError) as caught:
                service.Predict(request, **common)
            code = caught.exception.code()
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)


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
        (file,) = (
            json.loads(printed)["predictions"]
            for line, printed in answers
            if line.startswith("printf")
        )
        self.assertTrue(file[0]["valid"])
        self.assertLen(file[0]["mean"], 2)
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
        self.assertEqual(Image.open(root / "s.png").size, (262, 262))
