"""Small servers that answer as a test wants, for the client's sake."""

import concurrent.futures
import contextlib
import http.server
import io
import json
import shutil
import ssl
import subprocess
import sys
import threading
import unittest
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

from vae_tf.serving import client, errors

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


def status(state, code="OK", message=""):
    return {
        "model_version_status": [
            {
                "version": "7",
                "state": state,
                "status": {"error_code": code, "error_message": message},
            }
        ]
    }


class Fake:
    """What both fakes know. A fake knows nothing of TensorFlow Serving: it
    answers each prediction with the next of `answers`, the last for ever.

    An answer is a dictionary of outputs, an error of the wire (an HTTP status,
    or the name of a gRPC code), or a function of the wire's own handler. A
    state is the arguments of `status`, or its first.

    `places` holds what each request asked: `status`, `metadata` or `predict`,
    with its version and label; `headers` what came with it, in lower case.
    With `tls`, the paths of a certificate and its key, it speaks TLS."""

    def __init__(self, *answers, tls=None):
        self.answers = list(answers)
        self.asked, self.places, self.headers = [], [], []
        self.tls = tls
        self.states = ["AVAILABLE"]
        self.signature_defs = [signature_def()]

    def next(self, request):
        self.asked.append(request)
        return self.following(self.answers)

    def status(self):
        state = self.following(self.states)
        return status(*([state] if isinstance(state, str) else state))

    @staticmethod
    def following(values):
        return values.pop(0) if len(values) > 1 else values[0]


class FakeRest(Fake):
    @contextlib.contextmanager
    def started(self):
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def note(self):
                place = self.path.partition("/models/vae")[2]
                fake.places.append(place)
                fake.headers.append(
                    {key.lower(): one for key, one in self.headers.items()}
                )

            def do_GET(self):
                self.note()
                if self.path.endswith("/metadata"):
                    known = fake.following(fake.signature_defs)
                    content = {
                        "model_spec": {"name": "vae", "version": "7"},
                        "metadata": {"signature_def": known},
                    }
                else:
                    content = fake.status()
                self.reply(200, json.dumps(content))

            def do_POST(self):
                self.note()
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
            if self.tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.tls)
                it.socket = context.wrap_socket(it.socket, server_side=True)
            thread = threading.Thread(target=it.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http{'s' * bool(self.tls)}://127.0.0.1:{it.server_port}"
            finally:
                it.shutdown()
                thread.join()


class FakeGrpc(Fake):
    @contextlib.contextmanager
    def started(self):
        fake = self

        def note(word, request, context):
            spec, place = request.model_spec, ""
            if spec.HasField("version"):
                place = f"/versions/{spec.version.value}"
            elif spec.version_label:
                place = f"/labels/{spec.version_label}"
            fake.places.append(place + word)
            fake.headers.append(
                dict(context.invocation_metadata())
                | {"host": context._rpc_event.call_details.host.decode()}
            )

        class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
            def GetModelMetadata(self, request, context):
                note("/metadata", request, context)
                known = json_format.ParseDict(
                    fake.following(fake.signature_defs),
                    get_model_metadata_pb2.SignatureDefMap(),
                )
                reply = get_model_metadata_pb2.GetModelMetadataResponse()
                reply.model_spec.version.value = 7
                reply.metadata["signature_def"].Pack(known)
                return reply

            def Predict(self, request, context):
                note(":predict", request, context)
                answer = fake.next(request)
                if isinstance(answer, str):
                    context.abort(getattr(grpc.StatusCode, answer), "not this")
                if callable(answer):
                    answer(context)
                reply = predict_pb2.PredictResponse()
                for key, value in answer.items():
                    reply.outputs[key].CopyFrom(tf.make_tensor_proto(value))
                return reply

        class Models(model_service_pb2_grpc.ModelServiceServicer):
            def GetModelStatus(self, request, context):
                note("", request, context)
                return json_format.ParseDict(
                    fake.status(),
                    get_model_status_pb2.GetModelStatusResponse(),
                )

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Prediction(), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            Models(), server
        )
        if self.tls:
            certificate, key = (open(path, "rb").read() for path in self.tls)
            credentials = grpc.ssl_server_credentials([(key, certificate)])
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc{'s' * bool(self.tls)}://127.0.0.1:{port}"
        finally:
            server.stop(None)


FAKES = {"rest": FakeRest, "grpc": FakeGrpc}


@contextlib.contextmanager
def connected(fake, user="", **settings):
    settings = {"timeout": 10.0, "retries": 0, "max_message_bytes": 2**20} | (
        settings
    )
    with fake.started() as url:
        transport = client.connect(
            url.replace("://", f"://{user}"), "vae", **settings
        )
        with contextlib.closing(transport):
            yield transport


def certificate(directory):
    """The paths of a certificate of 127.0.0.1, signed by itself, and its key.

    Raises:
      unittest.SkipTest: there is no openssl to make it.
    """
    if not shutil.which("openssl"):
        raise unittest.SkipTest("openssl is not installed: TLS is not tried")
    paths = [str(directory / name) for name in ("certificate.pem", "key.pem")]
    subprocess.run(
        [
            *"openssl req -x509 -newkey rsa:2048 -nodes -days 2".split(),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths


def run_client(*arguments):
    """Exit code, standard output and standard error of its command line."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["client.py", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            client.main()
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


class TransportTestCase(parameterized.TestCase, tf.test.TestCase):
    def refused(self, kind, fake, signature="points", **settings):
        """The error of a prediction, of `kind` and of no subclass."""
        with connected(fake, **settings) as transport:
            with self.assertRaises(errors.ServingError) as caught:
                transport.predict(signature, SEED)
        self.assertIs(type(caught.exception), kind, caught.exception)
        return str(caught.exception)
