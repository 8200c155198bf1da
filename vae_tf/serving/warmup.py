"""The requests that a server runs before it answers any other: a signature's
first run takes many times as long as the next.
"""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from vae_tf.serving.signatures import Signature

# The batches that a server forms: deploy/batching.config's
# `allowed_batch_sizes`, up to its `max_execution_batch_size`.
BATCH_SIZES = (1, 8, 32, 64)


def write(functions: dict[str, Signature], path: pathlib.Path) -> None:
    """Writes one request per signature and batch size, as the TFRecord file
    that TensorFlow Serving looks for.
    """
    with tf.io.TFRecordWriter(str(path)) as file:
        for name, (_, specs) in functions.items():
            for rows in BATCH_SIZES:
                request = predict_pb2.PredictRequest()
                request.model_spec.signature_name = name
                for key, value in examples(specs, rows).items():
                    request.inputs[key].CopyFrom(_tensor(value))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                file.write(log.SerializeToString())


def examples(specs: list[tf.TensorSpec], rows: int) -> dict[str, np.ndarray]:
    """Valid inputs of a signature: normal latents, seeds, images of bits, which
    every likelihood gives probability, and files of either kind.
    """
    generator = np.random.default_rng(rows)
    inputs = {}
    for spec in specs:
        shape = (rows, *spec.shape[1:])
        if spec.name == "seed":
            value: np.ndarray = generator.integers(-(2**63), 2**63 - 1, shape)
        elif spec.name == "image":
            value = generator.integers(0, 2, shape)
        elif spec.name == "image_bytes":
            value = np.array([_file(generator, row) for row in range(rows)])
        else:
            value = generator.standard_normal(shape)
        inputs[spec.name] = value.astype(spec.dtype.as_numpy_dtype)
    return inputs


def _file(generator: np.random.Generator, row: int) -> bytes:
    levels = generator.integers(0, 256, (16, 16, 3), np.uint8)
    encode = (tf.io.encode_png, tf.io.encode_jpeg)[row % 2]
    return encode(levels).numpy()


def _tensor(value: np.ndarray) -> tensor_pb2.TensorProto:
    Shape = tensor_shape_pb2.TensorShapeProto
    proto = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(value.dtype).as_datatype_enum,
        tensor_shape=Shape(dim=[Shape.Dim(size=size) for size in value.shape]),
    )
    if value.dtype == object:
        proto.string_val.extend(value)
    else:
        proto.tensor_content = value.tobytes()
    return proto
