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
from vae_tf.serving.endpoints import Endpoint
from vae_tf.serving.replies import read
from vae_tf.serving.transports import Transport, seconds_left

INTEGER_BYTES = 10  # of the longest one, which has as many bytes as it needs


class Grpc(Transport):
    """See `Transport`. Proxies of the environment are not used."""

    CODES = {
        "INVALID_ARGUMENT": errors.InvalidRequest,
        # As over REST, where these three are one.
        "FAILED_PRECONDITION": errors.InvalidRequest,
        "OUT_OF_RANGE": errors.InvalidRequest,
        "NOT_FOUND": errors.NotFound,
        "UNAUTHENTICATED": errors.PermissionDenied,
        "PERMISSION_DENIED": errors.PermissionDenied,
        "RESOURCE_EXHAUSTED": errors.ResourceExhausted,
        "UNAVAILABLE": errors.Unavailable,
        "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    }

    def __init__(self, endpoint: Endpoint, *arguments, **settings):
        super().__init__(endpoint.url, *arguments, **settings)
        self._endpoint = endpoint
        headers = dict(endpoint.headers)
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # Or a retry would not even look whether the server is back.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
        ]
        if "host" in headers:  # which HTTP/2 calls so
            options.append(("grpc.default_authority", headers.pop("host")))
            # Certificates remain those of the URL's, as over https.
            options.append(("grpc.ssl_target_name_override", endpoint.host))
        self._headers = list(headers.items())
        # Or a host called `unix` would be a scheme.
        target = f"dns:///{endpoint.netloc}"
        if endpoint.scheme == "grpcs":
            trusted = endpoint.certificates
            credentials = grpc.ssl_channel_credentials(
                trusted.encode() if trusted else None
            )
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def close(self):
        self._channel.close()

    def _hide(self, text):
        return self._endpoint.hide(text)

    def _bytes_of(self, dtype):
        return INTEGER_BYTES if dtype.kind in "iu" else dtype.itemsize

    def _ask_status(self, deadline, version):
        request = get_model_status_pb2.GetModelStatusRequest()
        if version is not None:
            request.model_spec.version.value = version
        return _json_of(
            self._exchange(deadline, self._models.GetModelStatus, request)
        )

    def _ask_metadata(self, deadline):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            metadata_field=["signature_def"]
        )
        self._name_version(request, None)
        reply = self._exchange(
            deadline, self._prediction.GetModelMetadata, request
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        spec = reply.model_spec
        version = spec.version.value if spec.HasField("version") else None
        return {**_json_of(signatures), "version": version}

    def _ask_predict(self, deadline, signature, inputs, version):
        size = sum(value.nbytes for value in inputs.values())
        self._require_fits("request", size)
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        self._name_version(request, version)
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        reply = self._exchange(deadline, self._prediction.Predict, request)
        return read(
            "tensors",
            lambda given: {k: tf.make_ndarray(v) for k, v in given.items()},
            reply.outputs,
        )

    def _name_version(self, request, version: int | None) -> None:
        """Into a request: a version, or else what this transport asks."""
        if version is None:
            version = self.version
        if version is not None:
            request.model_spec.version.value = version
        elif self.label is not None:
            request.model_spec.version_label = self.label

    def _exchange(self, deadline, call, request):
        request.model_spec.name = self.model
        try:
            return call(
                request,
                timeout=seconds_left(deadline),
                metadata=self._headers,
            )
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
