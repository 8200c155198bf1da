"""A double of `tensorflow_model_server`, to run as a process of its own.

It is not TensorFlow Serving. On it, tests test a client, and what a bundle does
in a session of TensorFlow's C library; never what the real server does. Its
answers are written after the server's sources: REST and gRPC, batching, warm-up
and versions, of models whose inputs are numbers and strings.

Known to differ: texts of errors, a failed load is not tried again, an old
version goes as soon as the new one is there, queues of batches have no limit,
and what was loaded is never freed."""

# ruff: noqa: E402 (TensorFlow's Python has to be out of the way first)

import argparse
import base64
import concurrent.futures
import functools
import http.server
import itertools
import json
import math
import pathlib
import queue
import re
import sys
import threading
import time
import traceback
import typing
import urllib.parse

import numpy as np

from vae_tf.serving import check

check.without_tensorflow_python()

import grpc
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION = 2, 3, 5, 9
GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
HTTP_CODES = {3: 400, 5: 404, 8: 429, 9: 400, 11: 400, 12: 501, 14: 503}
NUMBERS = {np.dtype(dtype): number for number, dtype in check.DTYPES.items()}
FIELDS = {  # of a tensor's protocol buffer, by the array's dtype
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "uint8": "int_val",
    "object": "string_val",
    "int64": "int64_val",
    "bool": "bool_val",
}


def require(is_so, message: str, code: int = INVALID_ARGUMENT) -> None:
    if not is_so:
        raise check.SessionError(code, message)


# Batching.


class Batching:
    """`BatchingParameters`, a text proto whose definition is in no wheel."""

    def __init__(self, text: str):
        fields = {
            "max_batch_size": 1000,
            "batch_timeout_micros": 0,
            "max_enqueued_batches": 10,
            "num_batch_threads": 1,
            "enable_large_batch_splitting": False,
            "max_execution_batch_size": 0,
        }
        self.allowed = []
        field = r"(\w+)\s*(?:\{\s*value\s*:\s*(\w+)\s*\}|:\s*(\w+))"
        text = re.sub("#.*", "", text)
        for name, wrapped, plain in re.findall(field, text):
            if plain and name == "allowed_batch_sizes":
                self.allowed.append(int(plain))
            elif wrapped and name in fields:
                fields[name] = json.loads(wrapped)
            else:
                raise ValueError(f"Error parsing text-format: {name}")
        if left := re.sub(field, "", text).strip():
            raise ValueError(f"Error parsing text-format: {left}")
        self.timeout = fields["batch_timeout_micros"] / 1e6
        self.splits = fields["enable_large_batch_splitting"]
        self.largest_request = self.largest_run = fields["max_batch_size"]
        if self.splits and fields["max_execution_batch_size"]:
            self.largest_run = fields["max_execution_batch_size"]
        if self.allowed and self.allowed[-1] != self.largest_request:
            raise ValueError("Last of allowed_batch_sizes != max_batch_size")


class Task(typing.NamedTuple):
    """A request that waits for its batch."""

    inputs: dict[str, np.ndarray]
    rows: int
    answer: concurrent.futures.Future


class Batcher:
    """Runs requests of one signature that come together as one batch."""

    def __init__(self, run, batching: Batching):
        self.run_session, self.batching = run, batching
        self.queue, self.held = queue.Queue(), []
        threading.Thread(target=self.work, daemon=True).start()

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes = {value.shape[:1] for value in inputs.values()}
        # What the server does with no rows at all is not known.
        is_batch = len(sizes) == 1 and sizes.isdisjoint({(), (0,)})
        require(is_batch, "input tensors must have equal 0th-dimension size")
        task = Task(inputs, *sizes.pop(), concurrent.futures.Future())
        limit = self.batching.largest_request
        message = f"Task size {task.rows} is larger than maximum input batch "
        require(task.rows <= limit, f"{message}size {limit}")
        self.queue.put(task)
        return task.answer.result()

    def work(self) -> None:
        while True:
            tasks = self.gather()
            try:
                outputs = self.run_together(tasks)
            except Exception as error:  # of one request, to all of them
                for task in tasks:
                    task.answer.set_exception(error)
                continue
            start = 0
            for task in tasks:
                stop = start + task.rows
                own = {key: rows[start:stop] for key, rows in outputs.items()}
                task.answer.set_result(own)
                start = stop

    def gather(self) -> list[Task]:
        tasks = [self.held.pop() if self.held else self.queue.get()]
        room = self.batching.largest_run - tasks[0].rows
        end = time.monotonic() + self.batching.timeout
        while room > 0:
            try:
                task = self.queue.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                break
            if task.rows > room and not self.batching.splits:
                self.held.append(task)
                break
            tasks.append(task)
            room -= task.rows
        return tasks

    def run_together(self, tasks: list[Task]) -> dict[str, np.ndarray]:
        for key in tasks[0].inputs:
            shapes = {task.inputs[key].shape[1:] for task in tasks}
            message = f"{key}: different shapes and padding is turned off"
            require(len(shapes) == 1, message, FAILED_PRECONDITION)
        inputs, parts = joined([task.inputs for task in tasks]), []
        *starts, total = itertools.accumulate([0] + [t.rows for t in tasks])
        for start in range(0, total, self.batching.largest_run):
            stop = min(total, start + self.batching.largest_run)
            rows, size = list(range(start, stop)), stop - start
            padded = next((n for n in self.batching.allowed if n >= size), size)
            # What fills it up is the first row of the last request in it.
            last = max(first for first in starts if first < stop)
            rows += [max(last, start)] * (padded - size)
            outputs = self.run_session({k: v[rows] for k, v in inputs.items()})
            is_batch = {v.shape[:1] for v in outputs.values()} == {(padded,)}
            message = f"outputs' 0th dimension is not the batch's, {padded}"
            require(is_batch, message, FAILED_PRECONDITION)
            parts.append({key: value[:size] for key, value in outputs.items()})
        return joined(parts)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


# The model and its versions.


def signature_of(request: predict_pb2.PredictRequest) -> str:
    return request.model_spec.signature_name or "serving_default"


class Bundle:
    """A version, loaded and warm."""

    def __init__(self, path: pathlib.Path, batching: Batching | None):
        session = check.Session(path)
        self.version, self.signatures = int(path.name), session.signatures
        self.dtypes, self.runs = {}, {}
        for name, signature in self.signatures.items():
            self.dtypes[name] = {
                key: np.dtype(check.DTYPES.get(info.dtype, object))
                for key, info in signature.inputs.items()
            }
            run = functools.partial(session.run, name)
            self.runs[name] = Batcher(run, batching).run if batching else run
        # With those that the session leaves out.
        content = (path / "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        self.metadata = get_model_metadata_pb2.SignatureDefMap(
            signature_def=graph.signature_def
        )
        if (path / check.WARMUP).exists():
            for request in check.warmup_requests(path / check.WARMUP):
                self.predict(request)

    def predict(self, request: predict_pb2.PredictRequest) -> dict:
        name = signature_of(request)
        message = f'Serving signature key "{name}" not found.'
        require(name in self.signatures, message, FAILED_PRECONDITION)
        inputs = {key: from_proto(p) for key, p in request.inputs.items()}
        known = list(self.signatures[name].outputs)
        wanted = list(request.output_filter) or known
        is_known = set(wanted) <= set(known) and len(wanted) == len(set(wanted))
        require(is_known, f"output tensor alias not found or twice: {wanted}")
        outputs = self.run(name, inputs)
        return {key: outputs[key] for key in wanted}

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict:
        dtypes = {key: value.dtype for key, value in inputs.items()}
        expected = self.dtypes[name]
        require(dtypes == expected, f"{name}: {dtypes} is not {expected}")
        return self.runs[name](inputs)


class Model:
    """The versions of a model, of which the highest is served."""

    def __init__(self, name: str, base_path: str, batching: Batching | None):
        self.name, self.base_path = name, pathlib.Path(base_path)
        self.batching = batching
        self.bundle, self.failed, self.statuses = None, set(), {}

    def poll(self) -> None:
        """Loads the highest version there is, unless it is served."""
        try:
            names = [path.name for path in self.base_path.iterdir()]
        except OSError:
            return  # Only a directory without versions unloads the last.
        present = {int(n) for n in names if n.isascii() and n.isdigit()}
        self.failed &= present
        version, old = max(present, default=None), self.bundle
        if version in self.failed or version == (old and old.version):
            return
        new = None
        if version is not None:
            self.set_status(version, "LOADING")
            try:
                new = Bundle(self.base_path / str(version), self.batching)
            except Exception as error:  # Whatever it is, the old one stays.
                traceback.print_exc()
                self.failed.add(version)
                self.set_status(version, "END", error)
                return
        self.bundle = new
        if new:
            self.set_status(version, "AVAILABLE")
        if old:
            self.set_status(old.version, "END")

    def set_status(self, version: int, state: str, error=None) -> None:
        Status = get_model_status_pb2.ModelVersionStatus
        status = Status(version=version, state=state)
        if error:
            status.status.error_code = getattr(error, "code", UNKNOWN)
        status.status.error_message = str(error or "")
        self.statuses = {**self.statuses, version: status}  # for other threads

    def find(self, spec: model_pb2.ModelSpec) -> Bundle:
        bundle = self.bundle
        versions = (0, bundle.version) if bundle else ()  # 0: none is named
        is_here = spec.name == self.name and spec.version.value in versions
        message = f"Servable not found for request: {spec.name}"
        require(is_here and not spec.version_label, message, NOT_FOUND)
        return bundle

    def status(self, spec: model_pb2.ModelSpec):
        found = [
            self.statuses[version]
            for version in sorted(self.statuses, reverse=True)
            if spec.version.value in (0, version) and spec.name == self.name
        ]
        require(found, f"Could not find versions of {spec.name}", NOT_FOUND)
        Response = get_model_status_pb2.GetModelStatusResponse
        return Response(model_version_status=found)


# gRPC.


def from_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a tensor as a client sent it."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    require(min(shape, default=0) >= 0, f"tensor parsing error: {shape}")
    dtype = np.dtype(check.DTYPES.get(proto.dtype, object))
    try:
        if proto.tensor_content:
            return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
        given = np.array(getattr(proto, FIELDS[dtype.name]), dtype)
        # The last value stands for all that are left out.
        array = np.full(math.prod(shape), given[-1] if given.size else 0, dtype)
        array[: given.size] = given[: array.size]
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        message = f"tensor parsing error: {error}"
        raise check.SessionError(INVALID_ARGUMENT, message) from error


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=NUMBERS[array.dtype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, FIELDS[array.dtype.name]).extend(array.ravel().tolist())
    return proto


def answering(method):
    """Makes an error of the session the code of the call."""

    @functools.wraps(method)
    def answer(self, request, context):
        try:
            return method(self, request)
        except check.SessionError as error:
            context.abort(GRPC_CODES[error.code], str(error)[:1024])

    return answer


class Grpc(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, model: Model):
        self.model = model

    @answering
    def Predict(self, request):
        bundle = self.model.find(request.model_spec)
        request.model_spec.version.value = bundle.version
        request.model_spec.signature_name = signature_of(request)
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for key, array in bundle.predict(request).items():
            response.outputs[key].CopyFrom(to_proto(array))
        return response

    @answering
    def GetModelMetadata(self, request):
        fields = list(request.metadata_field)
        require(fields == ["signature_def"], f"Metadata field {fields}")
        bundle = self.model.find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.model.name
        response.model_spec.version.value = bundle.version
        response.metadata["signature_def"].Pack(bundle.metadata)
        return response

    @answering
    def GetModelStatus(self, request):
        return self.model.status(request.model_spec)


# REST.


def from_json(value, dtype: np.dtype) -> np.ndarray:
    """The array of nested lists."""
    shape, first, flat = [], value, []
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    require(len(shape) <= 32, "nested too deep")  # for NumPy

    def fill(value, level):
        if isinstance(value, list):
            is_expected = shape[level : level + 1] == [len(value)]
            require(is_expected, f"list at unexpected size: {len(value)}")
            for each in value:
                fill(each, level + 1)
        else:
            require(level == len(shape), f"{value!r} at incorrect level")
            if dtype.kind == "O":
                value = string_of(value)
            require(is_of(value, dtype), f"{value!r} is not of type: {dtype}")
            flat.append(value)

    fill(value, 0)
    return np.array(flat, dtype).reshape(shape)


def string_of(value):
    """The bytes that a string of JSON, or an object that stands for one, is."""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    if not isinstance(value, dict) or set(value) != {"b64"}:
        return value
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (TypeError, ValueError) as error:
        message = f"Unable to base64 decode: {error}"
        raise check.SessionError(INVALID_ARGUMENT, message) from error


def is_of(value, dtype: np.dtype) -> bool:
    """Whether a value of JSON is one of `dtype` without loss."""
    if dtype.kind in "iu" and type(value) is int:
        return np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    if dtype.kind == "f" and type(value) is int:
        return abs(value) < 2 ** (np.finfo(dtype).nmant + 1)
    if dtype.kind == "f" and type(value) is float:
        return not math.isfinite(value) or abs(value) <= np.finfo(dtype).max
    if dtype.kind == "O":
        return type(value) is bytes
    return dtype.kind == "b" and type(value) is bool


def columns_of(rows, names) -> dict:
    """The columns of `{"instances": rows}`."""
    is_list = isinstance(rows, list) and rows
    require(is_list, "Excepting 'instances' to be a list with values")
    if len(names) == 1 and not isinstance(rows[0], dict):
        return dict.fromkeys(names, rows)
    for row in rows:
        is_row = isinstance(row, dict) and set(row) == set(names)
        require(is_row, f"keys must be equal to: {sorted(names)}")
    return {name: [row[name] for row in rows] for name in names}


def to_json(key: str, array: np.ndarray) -> list:
    if array.dtype.kind == "f":  # the shortest digits that give the same float
        return array.astype(str).astype(float).tolist()
    if array.dtype.kind != "O":
        return array.tolist()
    if key.endswith("_bytes"):
        texts = [{"b64": base64.b64encode(t).decode()} for t in array.flat]
    else:
        texts = [text.decode(errors="surrogateescape") for text in array.flat]
    return np.fromiter(texts, object).reshape(array.shape).tolist()


def alone(values: dict):
    return values if len(values) > 1 else next(iter(values.values()))


as_dict = functools.partial(
    json_format.MessageToDict,
    preserving_proto_field_name=True,
    always_print_fields_with_no_presence=True,
)


class Rest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True  # or a body waits 40 ms after its header

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        code, content = 404, b""
        if path.lower().startswith("/v1/"):
            try:
                code, answer = 200, self.answer(path, body)
            except check.SessionError as error:
                code = HTTP_CODES.get(error.code, 500)
                answer = {"error": str(error)}
            text = json.dumps(answer, ensure_ascii=False)
            content = text.encode(errors="surrogateescape")
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass

    def answer(self, path: str, body: bytes) -> dict:
        tail = {"GET": "(/metadata)?", "POST": ":predict"}[self.command]
        model = r"/v1/models/([^/:]+)(?:/versions/(\d+))?"
        match = re.fullmatch(model + tail, path, re.IGNORECASE)
        require(match, f"Malformed request: {self.command} {path}")
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match[1]))
        spec.version.value = int(match[2] or 0)
        if self.command == "POST":
            return self.predict(spec, body)
        if not match[3]:
            return as_dict(self.server.model.status(spec))
        bundle = self.server.model.find(spec)
        spec.version.value = bundle.version
        signatures = {"signature_def": as_dict(bundle.metadata)}
        return {"model_spec": as_dict(spec), "metadata": signatures}

    def predict(self, spec: model_pb2.ModelSpec, body: bytes) -> dict:
        try:
            request = json.loads(body.decode())
        except (ValueError, RecursionError) as error:
            message = f"JSON Parse error: {error}"
            raise check.SessionError(INVALID_ARGUMENT, message) from error
        require(isinstance(request, dict), "Is not object")
        name = request.get("signature_name", "")
        require(isinstance(name, str), "'signature_name' must be a string")
        bundle = self.server.model.find(spec)
        name = name or "serving_default"
        message = f'Serving signature name: "{name}" not found in signature def'
        require(name in bundle.dtypes, message)
        dtypes = bundle.dtypes[name]
        is_row = "instances" in request
        is_one = is_row != ("inputs" in request)
        require(is_one, "expecting one of 'inputs' or 'instances' keys")
        if is_row:
            columns = columns_of(request["instances"], list(dtypes))
        else:
            columns = request["inputs"]
            if len(dtypes) == 1 and not isinstance(columns, dict):
                columns = dict.fromkeys(dtypes, columns)
        is_whole = isinstance(columns, dict) and set(dtypes) <= set(columns)
        require(is_whole, f"Missing named input, expecting: {sorted(dtypes)}")
        inputs = {key: from_json(columns[key], dtypes[key]) for key in dtypes}
        outputs = bundle.run(name, inputs)
        values = {key: to_json(key, array) for key, array in outputs.items()}
        if not is_row:
            return {"outputs": alone(values)}
        sizes = {array.shape[:1] for array in outputs.values()}
        require(len(sizes) == 1 and sizes != {()}, "inconsistent batch size")
        rows = zip(*values.values())
        return {"predictions": [alone(dict(zip(values, row))) for row in rows]}


def serve(model: Model, grpc_port: int, rest_port: int) -> grpc.Server:
    """Starts both; gRPC's ends with the object."""
    pool = concurrent.futures.ThreadPoolExecutor(64)
    names = ("max_receive_message_length", "max_send_message_length")
    options = [(f"grpc.{name}", -1) for name in names]
    # A port that is in use is an error.
    server = grpc.server(pool, options=[*options, ("grpc.so_reuseport", 0)])
    for add in (
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server,
        model_service_pb2_grpc.add_ModelServiceServicer_to_server,
    ):
        add(Grpc(model), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), Rest)
    rest.socket.listen(128)  # connections that arrive together
    rest.model = model
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    return server


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--model_name", default="vae")
    parser.add_argument("--model_base_path", required=True)
    parser.add_argument("--enable_batching", type=json.loads, default=False)
    parser.add_argument("--batching_parameters_file")
    wait = "--file_system_poll_wait_seconds"
    parser.add_argument(wait, type=float, default=1)
    parser.add_argument("--monitoring_config_file")  # ignored, as is the next
    parser.add_argument("--enable_grpc_healthcheck_service")
    flags = parser.parse_args()
    batching, file = None, flags.batching_parameters_file
    try:
        if flags.enable_batching:
            batching = Batching(pathlib.Path(file).read_text() if file else "")
        elif file:
            raise ValueError("batching_parameters_file without enable_batching")
    except (OSError, ValueError) as error:
        sys.exit(f"Failed to start server. Error: {error}")
    check.disable_xla()
    model = Model(flags.model_name, flags.model_base_path, batching)
    server = None
    while True:
        model.poll()
        # As the server: nobody is answered before a first version is there,
        # and one that fails ends it.
        if model.failed and not server:
            sys.exit(f"Failed to start server. Error: {model.statuses}")
        if model.bundle and not server:
            server = serve(model, flags.port, flags.rest_api_port)
        time.sleep(flags.file_system_poll_wait_seconds)


if __name__ == "__main__":
    main()
