"""A served model over gRPC, protocol buffers over HTTP/2, with TensorFlow."""

import grpc
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from vae_tf.serving import errors
from vae_tf.serving.transports import Transport, read, seconds_left


class Grpc(Transport):
    """gRPC: protocol buffers over HTTP/2. `address` is the server's
    `host:port`.
    """

    CODES = {
        "INVALID_ARGUMENT": errors.InvalidRequest,
        # As over REST, where these three are one.
        "FAILED_PRECONDITION": errors.InvalidRequest,
        "OUT_OF_RANGE": errors.InvalidRequest,
        "NOT_FOUND": errors.NotFound,
        "RESOURCE_EXHAUSTED": errors.ResourceExhausted,
        "UNAVAILABLE": errors.Unavailable,
        "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    }

    def __init__(self, *arguments, **kwargs):
        super().__init__(*arguments, **kwargs)
        self._channel = grpc.insecure_channel(
            self.address,
            options=[
                ("grpc.max_send_message_length", self.max_message_bytes),
                ("grpc.max_receive_message_length", self.max_message_bytes),
                # Or a retry would not even look whether the server is back.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def close(self):
        self._channel.close()

    def _ask_status(self, deadline):
        return _json_of(
            self._exchange(
                deadline,
                self._models.GetModelStatus,
                get_model_status_pb2.GetModelStatusRequest(),
            )
        )

    def _ask_metadata(self, deadline):
        reply = self._exchange(
            deadline,
            self._prediction.GetModelMetadata,
            get_model_metadata_pb2.GetModelMetadataRequest(
                metadata_field=["signature_def"]
            ),
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return _json_of(signatures)

    def _ask_predict(self, deadline, signature, inputs, version):
        size = sum(value.nbytes for value in inputs.values())
        self._require_fits("request", size)
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        reply = self._exchange(deadline, self._prediction.Predict, request)
        return read(
            "tensors",
            lambda given: {k: tf.make_ndarray(v) for k, v in given.items()},
            reply.outputs,
        )

    def _exchange(self, deadline, call, request):
        request.model_spec.name = self.model
        try:
            return call(request, timeout=seconds_left(deadline))
        except grpc.RpcError as error:
            code, detail = error.code().name, error.details() or ""
            kind = self.CODES.get(code, errors.ServerError)
            # gRPC has one code for this and for a server without memory.
            if kind is errors.ResourceExhausted and "larger than max" in detail:
                kind = errors.MessageTooLarge
            raise self._failed(kind, f"{code}: {detail}") from None


def _json_of(message) -> dict:
    """As TensorFlow Serving writes a message over REST, but for zeros, which
    are left out.
    """
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
