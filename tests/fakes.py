"""Small servers that answer as a test wants, for the client's sake."""

import concurrent.futures
import contextlib
import http.server
import json
import threading

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
        transport = client.connect(
            url,
            "vae",
            timeout=timeout,
            retries=retries,
            max_message_bytes=max_message_bytes,
        )
        with contextlib.closing(transport):
            yield transport


class TransportTestCase(parameterized.TestCase, tf.test.TestCase):
    def refused(self, kind, fake, signature="points", **settings):
        """The error of a prediction, of `kind` and of no subclass."""
        with connected(fake, **settings) as transport:
            with self.assertRaises(errors.ServingError) as caught:
                transport.predict(signature, SEED)
        self.assertIs(type(caught.exception), kind, caught.exception)
        return str(caught.exception)
