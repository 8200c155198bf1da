import concurrent.futures
import contextlib
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from unittest import mock

import image_files
import model_server
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from fakes import run_client
from PIL import Image
from small import IMAGE_SHAPE, random_bits, small_vae

import vae_tf
from vae_tf.serving import client as client_module
from vae_tf.serving import errors, transports
from vae_tf.serving.client import Client
from vae_tf.serving.signatures import signatures

WIRES = ("rest", "grpc")
NUM_IMPORTANCE_SAMPLES = 8
EXPORTS = tempfile.TemporaryDirectory()
BATCHING = pathlib.Path(model_server.ROOT) / "deploy/batching.config"
FILES = [
    image_files.png(image_files.noise(9, 30)),
    image_files.jpeg(image_files.noise(200, 300)),  # of many bytes
    b"no image",
    image_files.png(image_files.noise(4, 3, 1)),
    b"",
]
Z = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)


def setUpModule():
    vae_tf.export(
        small_vae(),
        EXPORTS.name,
        num_importance_samples=NUM_IMPORTANCE_SAMPLES,
    )


def tearDownModule():
    EXPORTS.cleanup()


def url(server, wire):
    return server.rest if wire == "rest" else f"grpc://{server.grpc}"


def pixels(files):
    return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in files])


class Cases(parameterized.TestCase, tf.test.TestCase):
    """What holds for every server over both wires."""

    __test__ = False
    server = batching = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.running = stack.enter_context(
            model_server.serving(cls.server, EXPORTS.name, cls.batching)
        )
        cls.addClassCleanup(stack.close)
        vae = small_vae()
        cls.functions = {
            name: function
            for name, (function, _) in signatures(
                vae, NUM_IMPORTANCE_SAMPLES
            ).items()
        }

    def client(self, wire, **settings):
        it = Client(url(self.running, wire), **settings)
        self.addCleanup(it.close)
        return it

    def transport(self, wire, model="vae", **settings):
        settings = {
            "timeout": 30.0,
            "retries": 0,
            "max_message_bytes": 2**20,
        } | settings
        it = client_module.connect(url(self.running, wire), model, **settings)
        self.addCleanup(it.close)
        return it

    def assert_answers_are_the_model_s(self, client):
        images, seeds = random_bits(5), [3, 1, 2, -7, 2**62]
        for name, inputs in (
            ("decode", [Z]),
            ("decode_sample", [Z, seeds]),
            ("encode", [images]),
            ("encode_sample", [images, seeds]),
            ("sample", [seeds]),
            ("reconstruct", [images]),
            ("score", [images, seeds]),
            ("explain", [images, seeds]),
            ("encode_bytes", [FILES, seeds]),
            ("score_bytes", [FILES, seeds]),
        ):
            answer = getattr(client, name)(*inputs)
            expected = self.functions[name](*map(tf.constant, inputs))
            if isinstance(answer, np.ndarray):
                answer = dict.fromkeys(expected, answer)
            else:
                answer = answer._asdict()
            self.assertSameElements(answer, expected)
            for key, value in answer.items():
                dtype = bool if key == "valid" else np.float32
                self.assertEqual(value.dtype, dtype)
                self.assertAllClose(value, expected[key], 1e-5, 1e-5)
            if name == "sample":
                self.assertAllEqual(answer["z"], expected["z"])
                self.assertAllEqual(answer["image"], expected["image"])
                levels = np.round(255 * answer["mean"][..., 0])
        files = client.sample_png(seeds)
        self.assertIsInstance(files[0], bytes)
        self.assertAllClose(pixels(files), levels, atol=1)

    @parameterized.parameters(*WIRES)
    def test_answers_are_the_model_s(self, wire):
        self.assert_answers_are_the_model_s(self.client(wire))

    @parameterized.parameters(*WIRES)
    def test_several_requests_answer_as_one(self, wire):
        client = self.client(wire, rows_per_request=2)
        predict = client._transport.predict
        with mock.patch.object(
            client._transport, "predict", side_effect=predict
        ) as spy:
            self.assert_answers_are_the_model_s(client)
            rows = [
                len(next(iter(call.args[1].values())))
                for call in spy.call_args_list
            ]
        self.assertEqual(rows, 11 * [2, 2, 1])

    @parameterized.parameters(*WIRES)
    def test_a_sample_depends_on_its_seed_alone(self, wire):
        client = self.client(wire)
        one, other = client.sample([1, 2, 3]), client.sample([3, 1, 2])
        self.assertAllEqual(other.z, one.z[[2, 0, 1]])
        self.assertAllClose(other.mean, one.mean[[2, 0, 1]], 1e-5, 1e-5)
        self.assertNotAllClose(one.z[0], one.z[1])

    @parameterized.parameters(*WIRES)
    def test_threads_share_a_client(self, wire):
        client = self.client(wire)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.sample, [[i, 7] for i in range(32)]))
        expected = client.sample([*range(32), 7])
        for place, answer in enumerate(answers):
            self.assertAllEqual(answer.z, expected.z[[place, 32]])
            self.assertAllClose(
                answer.mean, expected.mean[[place, 32]], 1e-5, 1e-5
            )

    @parameterized.product(
        wire=WIRES,
        case=(
            ("decode", {"z": np.zeros((2, 3), np.float32)}),
            ("decode", {"z": np.zeros((2,), np.float32)}),
            ("decode", {"z": np.zeros((0, 2), np.float32)}),
            ("decode", {"z": np.array([["a", "b"]])}),
            ("decode", {"seed": np.array([1])}),
            ("encode", {"image": np.zeros((2, 4, 4, 1), np.float32)}),
            ("encode", {"image": np.zeros((0, *IMAGE_SHAPE), np.float32)}),
            ("sample", {"seed": np.array([1.0, 2.0])}),
            ("sample", {"seed": np.array([[1], [2]])}),
            ("sample", {"seed": np.zeros(0, np.int64)}),
            ("score", {"image": random_bits(2), "seed": np.array([1])}),
            ("score", {"image": random_bits(1), "seed": np.array([1, 2])}),
            ("score", {"image": random_bits(2)}),
        ),
    )
    def test_the_server_refuses_what_the_client_would(self, wire, case):
        transport = self.transport(wire)
        with self.assertRaises(errors.ServingError) as caught:
            transport.predict(*case)
        self.assertIs(type(caught.exception), errors.InvalidRequest)
        self.assertNotEmpty(transport.predict("decode", {"z": Z}))

    @parameterized.product(wire=WIRES, value=(np.nan, np.inf, -np.inf))
    def test_latents_that_are_no_numbers_spoil_their_row(self, wire, value):
        z = Z.copy()
        z[1, 0] = value
        transport = self.transport(wire)
        whole = transport.predict("decode", {"z": Z})["image"]
        spoiled = transport.predict("decode", {"z": z})["image"]
        self.assertTrue(np.all(np.isnan(spoiled[1])))
        rest = [0, 2, 3, 4]
        self.assertAllClose(spoiled[rest], whole[rest], 1e-5, 1e-5)

    @parameterized.product(wire=WIRES, value=(np.nan, -0.1, 1.1))
    def test_pixels_out_of_range_spoil_their_row(self, wire, value):
        images, transport = random_bits(3), self.transport(wire)
        spoiled = images.copy()
        spoiled[1, 2, 1, 0] = value
        for name in ("encode", "reconstruct", "score"):
            seeds = {"seed": np.arange(3)} if name == "score" else {}
            whole = transport.predict(name, {"image": images} | seeds)
            answer = transport.predict(name, {"image": spoiled} | seeds)
            for key, value in answer.items():
                self.assertTrue(np.all(np.isnan(value[1])), key)
                self.assertAllClose(
                    value[[0, 2]], whole[key][[0, 2]], 1e-5, 1e-5
                )

    @parameterized.parameters(*WIRES)
    def test_what_is_not_there_is_not_found(self, wire):
        for transport, name, version, message in (
            (self.transport(wire), "latent", None, "one of decode.*'latent'"),
            (self.transport(wire), "decode", 99, "NOT_FOUND|404"),
            (self.transport(wire, "gan"), "decode", None, "'gan'.*received"),
        ):
            with self.assertRaisesRegex(errors.NotFound, message):
                transport.predict(name, {"z": Z}, version)
        with self.assertRaises(errors.NotFound):
            self.transport(wire, "gan").status()

    @parameterized.parameters(*WIRES)
    def test_an_unknown_signature_that_is_sent_all_the_same(self, wire):
        transport = self.transport(wire)
        known = transport.signatures()
        transport._signatures = known | {"latent": known["decode"]}
        with self.assertRaises(errors.InvalidRequest):
            transport.predict("latent", {"z": Z})

    @parameterized.parameters(*WIRES)
    def test_rows_that_are_too_large_together(self, wire):
        settings = {"rows_per_request": 1000, "max_message_bytes": 20_000}
        client = self.client(wire, **settings)
        z, seeds = np.random.default_rng(0).random((900, 2)), np.arange(900)
        predict = client._transport.predict
        with mock.patch.object(
            client._transport, "predict", side_effect=predict
        ) as spy:
            images = client.decode(z)
            self.assertGreater(spy.call_count, 1)
        self.assertLen(client.sample_png(seeds), 900)
        whole = self.client(wire, rows_per_request=1000)
        self.assertAllClose(images, whole.decode(z), 1e-5, 1e-5)

    @parameterized.parameters(*WIRES)
    def test_one_version_is_asked_where_it_is_named(self, wire):
        client = self.client(wire, version=1, rows_per_request=2)
        self.assertEqual(client.status(), {1: "AVAILABLE"})
        self.assertEqual(client.decode(Z).shape, (5, *IMAGE_SHAPE))
        other = self.client(wire, version=99)
        for ask in (other.status, lambda: other.decode(Z)):
            with self.assertRaises(errors.NotFound):
                ask()

    def test_numpy_is_enough_for_rest(self):
        venv = pathlib.Path(self.create_tempdir().full_path)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", venv], check=True
        )
        (packages,) = venv.glob("lib/*/site-packages")
        installed = pathlib.Path(np.__file__).parents[1]
        for name in ("numpy", "numpy.libs"):
            (packages / name).symlink_to(installed / name)
        code = (
            "import importlib.util, sys\n"
            "from vae_tf.serving.client import Client\n"
            "with Client(sys.argv[1], rows_per_request=2) as client:\n"
            "    samples = client.sample(range(3))\n"
            "    client.encode(samples.image), client.sample_png([7])\n"
            "    print(client.status(), client.decode(samples.z).shape)\n"
            "absent = ('tensorflow', 'absl', 'PIL', 'grpc', 'keras')\n"
            "assert not any(map(importlib.util.find_spec, absent))\n"
        )
        result = subprocess.run(
            [venv / "bin/python", "-c", code, self.running.rest],
            env={"PYTHONPATH": str(model_server.ROOT)},
            capture_output=True,
            text=True,
        )
        self.assertEqual(
            (result.stdout, result.stderr),
            (f"{{1: 'AVAILABLE'}} {(3, *IMAGE_SHAPE)}\n", ""),
        )

    @parameterized.parameters(*WIRES)
    def test_status(self, wire):
        self.assertEqual(self.client(wire).status(), {1: "AVAILABLE"})
        code, out, err = run_client("status", "--url", url(self.running, wire))
        self.assertEqual((code, out, err), (0, "version 1: AVAILABLE\n", ""))

    @parameterized.parameters(*WIRES)
    def test_a_sheet_of_samples(self, wire):
        path = pathlib.Path(self.create_tempdir().full_path) / "sheet.png"
        code, out, err = run_client(
            "sample",
            "--n=5",
            "--seed=-2",
            f"--out={path}",
            f"--url={url(self.running, wire)}",
        )
        self.assertEqual((code, out, err), (0, f"{path}\n", ""))
        sheet = np.asarray(Image.open(path))
        # Each pixel 22 x 22, so that a side has 64, and 2 between two images.
        height, width = 88, 66
        self.assertEqual(sheet.shape, (2 * height + 2, 3 * width + 4))
        files = self.client(wire).sample_png([-2, -1, 0, 1, 2])
        for place, image in enumerate(pixels(files)):
            row, column = divmod(place, 3)
            part = sheet[(height + 2) * row :, (width + 2) * column :]
            part = part[:height, :width]
            self.assertAllEqual(part, image.repeat(22, 0).repeat(22, 1))
        self.assertEqual([path], list(path.parent.iterdir()))


class DoubleTest(Cases):
    __test__ = True
    server = model_server.DOUBLE


@pytest.mark.slow
class BatchingDoubleTest(Cases):
    __test__ = True
    server = model_server.DOUBLE
    batching = BATCHING


class TensorFlowServingTest(Cases):
    __test__ = True
    server = model_server.REAL


class BatchingTensorFlowServingTest(Cases):
    __test__ = True
    server = model_server.REAL
    batching = BATCHING


class LifeTest(parameterized.TestCase, tf.test.TestCase):
    """A server that changes under its clients."""

    def setUp(self):
        super().setUp()
        self.base = pathlib.Path(self.create_tempdir().full_path) / "vae"
        shutil.copytree(EXPORTS.name, self.base)

    @parameterized.parameters(*model_server.SERVERS)
    @pytest.mark.slow
    def test_a_new_version_and_a_new_server(self, server):
        serving = model_server.serving(server, self.base)
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(serving)
            clients = [
                stack.enter_context(
                    Client(url(running, wire), retries=8, timeout=60)
                )
                for wire in WIRES
            ]
            for client in clients:
                self.assertEqual(client.decode(Z).shape, (5, *IMAGE_SHAPE))
            # Another latent space, of which the clients do not know yet.
            vae_tf.export(small_vae(latent_dim=3), self.base)
            running.wait(2)
            running.wait(1, "END")
            for client in clients:
                self.assertEqual(client.status()[2], "AVAILABLE")
                self.assertEqual(client.encode(random_bits(2)).mean.shape[1], 3)
                self.assertLen(client.decode(np.zeros((2, 3))), 2)
                with self.assertRaisesRegex(
                    errors.InvalidRequest, r"z: expected \[N, 3\]"
                ):
                    client.decode(Z)
            running.process.kill()
            running.process.wait()
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
            answers = [
                pool.submit(client.decode, np.zeros((2, 3)))
                for client in clients
            ]
            time.sleep(0.1)
            ports = {
                "port": int(running.grpc.split(":")[-1]),
                "rest_api_port": int(running.rest.split(":")[-1]),
            }
            with model_server.serving(server, self.base, **ports):
                for answer in answers:
                    self.assertLen(answer.result(), 2)


class ChecksTest(parameterized.TestCase, tf.test.TestCase):
    """What a client does before it asks, and without a server."""

    SPECS = {
        "decode": {
            "inputs": {"z": ("float32", (-1, 2))},
            "outputs": {"image": ("float32", (-1, *IMAGE_SHAPE))},
        },
        "score": {
            "inputs": {
                "image": ("float32", (-1, *IMAGE_SHAPE)),
                "seed": ("int64", (-1,)),
            },
            "outputs": {},
        },
        "encode": {
            "inputs": {"image": ("float32", (-1, *IMAGE_SHAPE))},
            "outputs": {},
        },
        "sample": {"inputs": {"seed": ("int64", (-1,))}, "outputs": {}},
    }

    def client(self, **settings):
        """A client, and a transport that is a mock."""
        client = Client(**settings)
        client._transport = mock.create_autospec(
            transports.Transport, instance=True
        )
        client._transport.signatures.return_value = self.SPECS
        client._transport.answering.return_value = 1
        client._transport.rows_that_fit.return_value = 2**31
        return client, client._transport

    @parameterized.parameters(
        ("decode", [[[0.0, np.nan]]], "z: expected finite.*received nan"),
        ("decode", [[[0.0, -np.inf]]], "z: expected finite.*received -inf"),
        ("decode", [[[0.0, 1e300]]], "z: expected finite.*received inf"),
        ("decode", [np.zeros((2, 3))], r"z: .*\[N, 2\].*received \[2, 3\]"),
        ("decode", [np.zeros(2)], r"z: expected \[N, 2\].*received \[2\]"),
        ("decode", [np.zeros((0, 2))], r"z: .*one row.*received \[0, 2\]"),
        ("decode", [0.0], r"z: .*one row.*received \[\] of float64"),
        ("decode", [[[0.0, 1j]]], "z: expected finite.*complex"),
        ("decode", [[["a", "b"]]], "z: expected finite.*received .*U1"),
        ("decode", [[[0.0, 1.0], [2.0]]], "z: expected.*several shapes"),
        ("decode", [[[True, False]]], "z: expected finite.*bool"),
        ("encode", [np.full((1, 4, 3, 1), np.nan)], "image: .*received nan"),
        ("encode", [np.full((1, 4, 3, 1), 1.5)], "image: .*1.*received 1.5"),
        ("encode", [np.full((1, 4, 3, 1), -0.5)], "image: .*received -0.5"),
        ("encode", [np.full((1, 4, 3, 1), 255)], "image: .*received 255"),
        ("encode", [np.zeros((4, 3, 1))], r"image: .*\[N, 4, 3, 1\]"),
        ("sample", [[1.0]], "seed: expected integers.*float64"),
        ("sample", [[True]], "seed: expected integers.*bool"),
        ("sample", [[2**63]], f"seed: expected integers.*{2**63}"),
        ("sample", [[2**70]], "seed: expected integers.*object"),
        ("sample", [[-(2**70)]], "seed: expected integers.*object"),
        ("sample", [7], r"seed: .*received \[\] of int64"),
        ("sample", [[]], "seed: expected integers.*at least one row"),
        ("sample", [[[1]]], r"seed: expected \[N\] of int64.*\[1, 1\]"),
        ("score", [random_bits(2), [1]], "image, seed: .*received 2, 1"),
        ("sample_png", [[1]], "sample_png: expected .*received.*decode, enc"),
    )
    def test_refuses_before_it_asks(self, name, inputs, message):
        client, transport = self.client()
        with self.assertRaisesRegex(errors.InvalidRequest, message):
            getattr(client, name)(*inputs)
        transport.predict.assert_not_called()

    def test_converts_what_it_can_without_loss_of_meaning(self):
        client, transport = self.client()
        transport.predict.return_value = {"image": np.zeros(1)}
        for value in ([[1, 2]], np.array([[1, 2]], np.uint8), [[1.0, 2.0]]):
            client.decode(value)
            z = transport.predict.call_args.args[1]["z"]
            self.assertEqual(z.dtype, np.float32)
            self.assertAllEqual(z, [[1, 2]])
        for value in (np.array([5], np.uint64), np.array([5], np.int8), [5]):
            with contextlib.suppress(TypeError):  # of the mock's answer
                client.sample(value)
            seed = transport.predict.call_args.args[1]["seed"]
            self.assertEqual((seed.dtype, seed.tolist()), (np.int64, [5]))

    def test_looks_again_when_a_shape_does_not_fit(self):
        client, transport = self.client()
        changed = self.SPECS | {
            "decode": {"inputs": {"z": ("float32", (-1, 3))}, "outputs": {}}
        }
        transport.signatures.side_effect = lambda refresh=False: (
            changed if refresh else self.SPECS
        )
        transport.predict.return_value = {"image": "answer"}
        self.assertEqual(client.decode(np.zeros((1, 3))), "answer")
        self.assertEqual(
            transport.signatures.call_args_list,
            [mock.call(False), mock.call(True)],
        )
        # What no version could answer is no reason to look.
        transport.signatures.reset_mock()
        for z in ([[np.nan, 0.0]], np.zeros((0, 2))):
            with self.assertRaises(errors.InvalidRequest):
                client.decode(z)
        transport.signatures.assert_not_called()

    @parameterized.parameters(
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "3"},
        {"timeout": True},
        {"timeout": None},
        {"timeout": 2**31},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"rows_per_request": 0},
        {"max_message_bytes": 2**31},
        {"model": ""},
        {"model": None},
        {"model": "\udc80"},
        {"label": ""},
        {"label": 3},
        {"version": -1},
        {"version": True},
        {"version": "1"},
        {"version": 2**63},
        {"url": "127.0.0.1:8501"},
        {"url": None},
        {"url": b"http://127.0.0.1:8501"},
    )
    def test_refuses_settings(self, **settings):
        ((name, value),) = settings.items()
        with self.assertRaisesRegex(
            vae_tf.UserError,
            f"{name}: expected .*received {re.escape(repr(value))}",
        ):
            Client(**settings)

    def test_a_version_and_a_label_are_one_too_many(self):
        with self.assertRaisesRegex(vae_tf.UserError, "label: .*3 and 'new'"):
            Client(version=3, label="new")

    @parameterized.parameters(
        {"version": 0},
        {"label": "new"},
        {"token": "t"},
        {"headers": {}},
        {"ca_file": "ca.pem"},
    )
    def test_a_bundle_takes_nothing_of_a_server(self, **settings):
        (name,) = settings
        with self.assertRaisesRegex(
            vae_tf.UserError, f"{name}: expected none with a bundle"
        ):
            Client(f"bundle:{EXPORTS.name}", **settings)

    def test_imports_numpy_alone(self):
        code = (
            "import sys\n"
            "before = set(sys.modules)\n"
            "from vae_tf.serving.client import Client\n"
            "Client(), Client('https://127.0.0.1')\n"
            "names = {name.split('.')[0] for name in sys.modules}\n"
            "names -= {name.split('.')[0] for name in before}\n"
            "print(sorted(names - sys.stdlib_module_names))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        self.assertEqual(result.stderr, "")
        self.assertEqual(result.stdout, "['numpy', 'vae_tf']\n")

    def test_closes_its_connection(self):
        client, transport = self.client()
        with client as same:
            self.assertIs(client, same)
        transport.close.assert_called_once_with()
