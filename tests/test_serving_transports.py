import base64
import concurrent.futures
import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from vae_tf.config import UserError
from vae_tf.serving import transports

WIRES = ("rest", "grpc")
SEED = {"seed": np.array([3, 1])}


def tensor(dtype, *shape):
    """As TensorFlow Serving describes one."""
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": "x:0",
    }


def signature_def(columns=2):
    seed, predict = tensor("DT_INT64", "-1"), "tensorflow/serving/predict"
    return {
        "signature_def": {
            "points": {
                "inputs": {"seed": seed},
                "outputs": {"z": tensor("DT_FLOAT", "-1", columns)},
                "method_name": predict,
            },
            "pictures": {
                "inputs": {"seed": seed},
                "outputs": {"image_bytes": tensor("DT_STRING", "-1")},
                "method_name": predict,
            },
            "both": {
                "inputs": {"seed": seed},
                "outputs": {
                    "z": tensor("DT_FLOAT", "-1", columns),
                    "elbo": tensor("DT_FLOAT", "-1"),
                },
                "method_name": predict,
            },
            "__saved_model_init_op": {
                "inputs": {},
                "outputs": {
                    "__saved_model_init_op": {
                        "dtype": "DT_INVALID",
                        "tensor_shape": {"dim": [], "unknown_rank": True},
                        "name": "NoOp",
                    }
                },
                "method_name": "",
            },
        }
    }


def status(state):
    return {
        "model_version_status": [
            {
                "version": "7",
                "state": state,
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


class Fake:
    """What both fakes know. A fake knows nothing of TensorFlow Serving: it
    answers each prediction with the next of `answers`, the last for ever.

    An answer is a dictionary of outputs, an error of the wire (an HTTP status,
    or the name of a gRPC code), or a function of the wire's own handler."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.states = ["AVAILABLE"]
        self.signature_defs = [signature_def()]

    def next(self, request):
        self.asked.append(request)
        return self.following(self.answers)

    @staticmethod
    def following(values):
        return values.pop(0) if len(values) > 1 else values[0]


class FakeRest(Fake):
    @contextlib.contextmanager
    def started(self):
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.endswith("/metadata"):
                    known = fake.following(fake.signature_defs)
                    content = {"metadata": {"signature_def": known}}
                else:
                    content = status(fake.following(fake.states))
                self.reply(200, json.dumps(content))

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                answer = fake.next((self.path, body))
                if isinstance(answer, dict):
                    outputs = answer.get("bare", answer)
                    self.reply(200, json.dumps({"outputs": outputs}))
                elif isinstance(answer, int):
                    # TensorFlow Serving's quotes are no JSON.
                    self.reply(answer, '{ "error": "not \\\'this\\\'" }')
                else:
                    answer(self)

            def reply(self, code, text, length=None):
                content = text.encode()
                self.send_response(code)
                self.send_header("Content-Length", length or len(content))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as it:
            thread = threading.Thread(target=it.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{it.server_port}"
            finally:
                it.shutdown()
                thread.join()


class FakeGrpc(Fake):
    @contextlib.contextmanager
    def started(self):
        fake = self

        class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
            def GetModelMetadata(self, request, context):
                known = json_format.ParseDict(
                    fake.following(fake.signature_defs),
                    get_model_metadata_pb2.SignatureDefMap(),
                )
                reply = get_model_metadata_pb2.GetModelMetadataResponse()
                reply.metadata["signature_def"].Pack(known)
                return reply

            def Predict(self, request, context):
                answer = fake.next(request)
                if isinstance(answer, str):
                    context.abort(getattr(grpc.StatusCode, answer), "not this")
                reply = predict_pb2.PredictResponse()
                for key, value in answer.items():
                    reply.outputs[key].CopyFrom(tf.make_tensor_proto(value))
                return reply

        class Models(model_service_pb2_grpc.ModelServiceServicer):
            def GetModelStatus(self, request, context):
                return json_format.ParseDict(
                    status(fake.following(fake.states)),
                    get_model_status_pb2.GetModelStatusResponse(),
                )

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Prediction(), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            Models(), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(None)


FAKES = {"rest": FakeRest, "grpc": FakeGrpc}


@contextlib.contextmanager
def connected(fake, retries=0, timeout=10.0, max_message_bytes=2**20):
    with fake.started() as url:
        transport = transports.connect(
            url,
            "vae",
            timeout=timeout,
            retries=retries,
            max_message_bytes=max_message_bytes,
        )
        with contextlib.closing(transport):
            yield transport


class TransportsTest(parameterized.TestCase, tf.test.TestCase):
    def refused(self, kind, fake, signature="points", **settings):
        """The error of a prediction, of `kind` and of no subclass."""
        with connected(fake, **settings) as transport:
            with self.assertRaises(transports.ServingError) as caught:
                transport.predict(signature, SEED)
        self.assertIs(type(caught.exception), kind, caught.exception)
        return str(caught.exception)

    @parameterized.parameters(*WIRES)
    def test_reads_signatures_and_states(self, wire):
        with connected(FAKES[wire]({})) as transport:
            self.assertEqual(transport.status(), {7: "AVAILABLE"})
            self.assertEqual(
                transport.signatures(),
                {
                    "points": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {"z": ("float32", (-1, 2))},
                    },
                    "pictures": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {"image_bytes": ("string", (-1,))},
                    },
                    "both": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {
                            "z": ("float32", (-1, 2)),
                            "elbo": ("float32", (-1,)),
                        },
                    },
                },
            )

    @parameterized.parameters(*WIRES)
    def test_remembers_signatures_until_told(self, wire):
        fake = FAKES[wire]({})
        fake.signature_defs = [signature_def(2), signature_def(3)]
        with connected(fake) as transport:
            for _ in range(2):
                outputs = transport.signatures()["points"]["outputs"]
                self.assertEqual(outputs["z"][1], (-1, 2))
            outputs = transport.signatures(refresh=True)["points"]["outputs"]
            self.assertEqual(outputs["z"][1], (-1, 3))

    def test_rest_sends_columns_and_reads_a_bare_output(self):
        numbers = [[float("nan"), float("inf")], [-float("inf"), 0.1]]
        fake = FakeRest({"bare": numbers})
        with connected(fake) as transport:
            answer = transport.predict("points", SEED)
            transport.predict("points", SEED, version=7)
        self.assertEqual(answer["z"].dtype, np.float32)
        self.assertAllEqual(answer["z"], np.float32(numbers))
        body = {"signature_name": "points", "inputs": {"seed": [3, 1]}}
        self.assertEqual(
            fake.asked,
            [
                ("/v1/models/vae:predict", body),
                ("/v1/models/vae/versions/7:predict", body),
            ],
        )

    def test_grpc_sends_the_bytes_of_an_array(self):
        fake = FakeGrpc({"z": np.zeros((2, 2), np.float32)})
        with connected(fake) as transport:
            transport.predict("points", SEED)
            transport.predict("points", SEED, version=7)
        first, second = fake.asked
        self.assertEqual(first.model_spec.name, "vae")
        self.assertEqual(first.model_spec.signature_name, "points")
        self.assertFalse(first.model_spec.HasField("version"))
        self.assertEqual(second.model_spec.version.value, 7)
        self.assertEqual(
            first.inputs["seed"].tensor_content, SEED["seed"].tobytes()
        )

    @parameterized.parameters(*WIRES)
    def test_strings_are_arrays_of_bytes(self, wire):
        files = [b"\x89PNG\0\xff\0", b""]
        answer = {"image_bytes": np.array(files, object)}
        if wire == "rest":
            texts = [base64.b64encode(file).decode() for file in files]
            answer = {"bare": [{"b64": text} for text in texts]}
        with connected(FAKES[wire](answer)) as transport:
            got = transport.predict("pictures", SEED)["image_bytes"]
        self.assertEqual(got.dtype, object)
        self.assertEqual(got.tolist(), files)

    @parameterized.parameters(
        (400, "INVALID_ARGUMENT", transports.InvalidRequest),
        (400, "FAILED_PRECONDITION", transports.InvalidRequest),
        (400, "OUT_OF_RANGE", transports.InvalidRequest),
        (404, "NOT_FOUND", transports.NotFound),
        (429, "RESOURCE_EXHAUSTED", transports.ResourceExhausted),
        (503, "UNAVAILABLE", transports.Unavailable),
        (504, "DEADLINE_EXCEEDED", transports.DeadlineExceeded),
        (500, "INTERNAL", transports.ServerError),
        (501, "UNIMPLEMENTED", transports.ServerError),
    )
    def test_both_fail_alike(self, code, name, kind):
        for fake in (FakeRest(code), FakeGrpc(name)):
            message = self.refused(kind, fake)
            self.assertRegex(message, "expected an answer of .*'vae', received")
            self.assertRegex(message, f"({code}|{name}): .*not .*this")

    @parameterized.parameters(*WIRES)
    def test_a_mistake_is_a_value_error_and_not_asked_again(self, wire):
        fake = FAKES[wire]({"rest": 400, "grpc": "INVALID_ARGUMENT"}[wire])
        with connected(fake, retries=3) as transport:
            with self.assertRaises(UserError):
                transport.predict("points", SEED)
        self.assertLen(fake.asked, 1)

    @parameterized.parameters(*WIRES)
    def test_asks_again_while_unavailable(self, wire):
        error = {"rest": 503, "grpc": "UNAVAILABLE"}[wire]
        z = [[1.0, 2.0], [3.0, 4.0]]
        with mock.patch.object(transports, "FIRST_PAUSE", 0.01):
            fake = FAKES[wire](error, error, {"z": np.float32(z).tolist()})
            with connected(fake, retries=2) as transport:
                answer = transport.predict("points", SEED)
            self.assertAllEqual(answer["z"], z)
            self.assertLen(fake.asked, 3)
            fake = FAKES[wire](error)
            self.refused(transports.Unavailable, fake, retries=2)
            self.assertLen(fake.asked, 3)

    @parameterized.parameters(*WIRES)
    def test_pauses_longer_each_time_and_never_past_the_timeout(self, wire):
        fake = FAKES[wire]({"rest": 503, "grpc": "UNAVAILABLE"}[wire])
        start, pauses, sleep = time.monotonic(), [], time.sleep

        def slept(seconds):
            pauses.append(seconds)
            sleep(seconds)

        with (
            mock.patch.object(transports, "FIRST_PAUSE", 0.1),
            mock.patch.object(transports.time, "sleep", slept),
        ):
            self.refused(transports.Unavailable, fake, retries=99, timeout=1)
        self.assertLess(time.monotonic() - start, 1.5)
        self.assertBetween(len(pauses), 2, 4)
        for place, pause in enumerate(pauses):
            self.assertBetween(pause, 0.05 * 2**place, 0.1 * 2**place)

    @parameterized.parameters(*WIRES)
    def test_a_model_that_loads_is_unavailable(self, wire):
        error = {"rest": 404, "grpc": "NOT_FOUND"}[wire]
        fake = FAKES[wire](error)
        fake.states = ["LOADING"]
        message = self.refused(transports.Unavailable, fake)
        self.assertRegex(message, "expected .*AVAILABLE, received.*LOADING")
        fake = FAKES[wire](error, {"z": np.zeros((2, 2)).tolist()})
        fake.states = ["LOADING"]
        with connected(fake, retries=1) as transport:
            transport.predict("points", SEED)

    @parameterized.parameters(*WIRES)
    def test_an_unknown_signature_is_not_sent(self, wire):
        fake = FAKES[wire]({})
        message = self.refused(transports.NotFound, fake, signature="decode")
        self.assertRegex(message, "expected one of both, .*received 'decode'")
        self.assertEmpty(fake.asked)

    @parameterized.product(
        wire=WIRES,
        answer=(
            {"z": [[1.0, 2.0]]},
            {"z": [[1.0], [2.0]]},
            {"z": [1.0, 2.0]},
            {"image": [[1.0, 2.0], [3.0, 4.0]]},
        ),
    )
    def test_other_outputs_are_a_bad_reply(self, wire, answer):
        self.refused(transports.BadReply, FAKES[wire](answer))

    @parameterized.parameters(
        ("points", {"bare": [[1.0, 2.0], [3.0]]}),
        ("points", {"bare": "text"}),
        ("points", {"bare": {}}),
        ("both", {"bare": [[1.0, 2.0], [3.0, 4.0]]}),
        ("pictures", {"bare": ["text", "more"]}),
        ("pictures", {"bare": [{"b64": 3}, {"b64": 3}]}),
        ("points", lambda wire: wire.reply(200, "<html>")),
        ("points", lambda wire: wire.reply(200, '{"outputs": [[1.0, 2')),
        ("points", lambda wire: wire.reply(200, '{"predictions": []}')),
        ("points", lambda wire: wire.reply(200, "[]")),
        ("points", lambda wire: wire.reply(200, "\x80")),
        ("points", lambda wire: wire.wfile.write(b"SSH-2.0-OpenSSH\r\n")),
    )
    def test_no_answer_is_a_bad_reply(self, signature, answer):
        fake = FakeRest(answer)
        self.refused(transports.BadReply, fake, signature, retries=2)
        self.assertLen(fake.asked, 1)

    def test_damaged_metadata_are_a_bad_reply(self):
        for known in ([], {"signature_def": {"points": {"inputs": {}}}}):
            fake = FakeRest({})
            fake.signature_defs = [known]
            self.refused(transports.BadReply, fake)

    @parameterized.parameters(*WIRES)
    def test_reads_the_answer_of_a_version_with_other_shapes(self, wire):
        fake = FAKES[wire]({"z": np.ones((2, 3)).tolist()})
        fake.signature_defs = [signature_def(2), signature_def(3)]
        with connected(fake) as transport:
            transport.signatures()
            self.assertAllEqual(
                transport.predict("points", SEED)["z"], np.ones((2, 3))
            )
            self.assertLen(fake.asked, 1)

    def test_a_connection_that_breaks_is_unavailable(self):
        def cut(wire):
            wire.reply(200, '{"outputs": ', length=100)

        def cut_chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            wire.wfile.write(b"ff\r\n{")
            wire.close_connection = True

        def hang_up(wire):
            wire.connection.shutdown(socket.SHUT_RDWR)

        good = {"bare": [[1.0, 2.0], [3.0, 4.0]]}
        for answer in (cut, cut_chunks, hang_up):
            self.refused(transports.Unavailable, FakeRest(answer))
            with connected(FakeRest(answer, good), retries=1) as transport:
                transport.predict("points", SEED)

    def test_reads_chunks(self):
        def chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            for part in (b'{"outputs": [[1, 2],', b"[3, 4]]}", b""):
                wire.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

        with connected(FakeRest(chunks)) as transport:
            answer = transport.predict("points", SEED)
        self.assertAllEqual(answer["z"], [[1, 2], [3, 4]])

    def test_no_server_is_unavailable(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for scheme in ("http", "grpc"):
            transport = transports.connect(
                f"{scheme}://127.0.0.1:{port}",
                "vae",
                timeout=10.0,
                retries=0,
                max_message_bytes=2**20,
            )
            with self.assertRaisesRegex(
                transports.Unavailable, f"127.0.0.1:{port}"
            ):
                transport.status()

    def test_no_answer_in_time(self):
        over = threading.Event()
        self.addCleanup(over.set)

        def sleep(wire):
            over.wait(10)

        def dribble(wire):
            wire.send_response(200)
            wire.send_header("Content-Length", 50)
            wire.end_headers()
            with contextlib.suppress(OSError):  # The client goes.
                while not over.wait(0.1):
                    wire.wfile.write(b" ")

        for answer in (sleep, dribble):
            start = time.monotonic()
            message = self.refused(
                transports.DeadlineExceeded,
                FakeRest(answer),
                timeout=0.5,
                retries=3,
            )
            self.assertIn("none in 0.5 s", message)
            self.assertBetween(time.monotonic() - start, 0.4, 2)

    def test_no_answer_of_grpc_in_time(self):
        # A server that takes connections, and no more.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            transport = transports.connect(
                f"grpc://127.0.0.1:{silent.getsockname()[1]}",
                "vae",
                timeout=0.5,
                retries=3,
                max_message_bytes=2**20,
            )
            with self.assertRaises(transports.DeadlineExceeded):
                transport.status()
            transport.close()

    def test_a_large_reply_is_named_and_not_read(self):
        def chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            with contextlib.suppress(OSError):  # The client goes.
                for _ in range(1000):
                    wire.wfile.write(b"1000\r\n%s\r\n" % (b" " * 4096))

        large = {"z": np.zeros((2, 50_000), np.float32).tolist()}
        for fake in (FakeRest(large), FakeRest(chunks), FakeGrpc(large)):
            message = self.refused(
                transports.MessageTooLarge, fake, max_message_bytes=20_000
            )
            self.assertRegex(message, "20000|20,000")

    @parameterized.parameters(*WIRES)
    def test_a_large_request_is_not_sent(self, wire):
        fake = FAKES[wire]({})
        with connected(fake, max_message_bytes=5000) as transport:
            with self.assertRaisesRegex(
                transports.MessageTooLarge, "request of at most 5000 bytes"
            ):
                transport.predict("points", {"seed": np.arange(5000)})
        self.assertEmpty(fake.asked)

    @parameterized.parameters(
        "127.0.0.1:8501",
        "ftp://127.0.0.1:8501",
        "http://",
        "http://127.0.0.1:port",
        "grpc://127.0.0.1",
    )
    def test_refuses_what_is_no_url(self, url):
        with self.assertRaisesRegex(
            UserError, f"--url: expected http.*grpc.*received '{url}'"
        ):
            transports.connect(url, "vae")

    def test_rest_needs_no_tensorflow(self):
        with FakeRest({"z": [[1.0, 2.0], [3.0, 4.0]]}).started() as url:
            code = (
                "import sys, numpy\n"
                "from vae_tf.serving import transports\n"
                "t = transports.connect(sys.argv[1], 'vae', timeout=9.0,\n"
                "    retries=0, max_message_bytes=10**6)\n"
                "t.predict('points', {'seed': numpy.arange(2)})\n"
                "sys.exit(bool({'tensorflow', 'keras', 'grpc'}\n"
                "    & set(sys.modules)))"
            )
            subprocess.run([sys.executable, "-c", code, url], check=True)
