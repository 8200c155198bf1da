"""Checks a bundle on the path by which TensorFlow Serving loads and runs it.

python check.py BUNDLE [CASES.npz]

Checksums, a scan of every function that a request reaches, and a run through
TensorFlow's C library with XLA switched off, as the server switches it off.
Imports nothing of the package and, run by its path, nothing of TensorFlow's
Python: `tf.saved_model.load` would find weights and compilers that a server
does not have. One file, so that it can be taken to where a bundle is."""

import ctypes
import functools
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import re
import struct
import sys

import numpy as np

# Absolute and relative, but for the z of `sample`, which is equal: batches of
# other sizes are summed in another order.
TOLERANCE = 1e-5
MANIFEST = "assets.extra/manifest.json"
SEAL = f"{MANIFEST}.sha256"
WARMUP = "assets.extra/tf_serving_warmup_requests"
DTYPES = {  # TensorFlow's numbers
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    7: np.object_,  # strings
    9: np.int64,
    10: np.bool_,
}
STRING, STRING_BYTES = 7, 24
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class CheckError(Exception):
    """The bundle would fail in the server, or is not what was exported."""


class SessionError(Exception):
    """An error of the session, with its code of TensorFlow (3 is
    INVALID_ARGUMENT).
    """

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def without_tensorflow_python() -> None:
    """Makes TensorFlow's protocol buffers importable without the rest of it,
    for a process that is to see what a server sees.
    """
    if "tensorflow" not in sys.modules:
        spec = importlib.util.find_spec("tensorflow")
        # Made, not executed.
        sys.modules["tensorflow"] = importlib.util.module_from_spec(
            spec  # type: ignore[arg-type]  # It is installed.
        )


class Session:
    """A bundle in a session of TensorFlow's C library: `LoadSavedModel`, then
    a session's `Run`, which is what the server calls.

    Args:
      bundle: directory of a SavedModel.

    Raises:
      SessionError: it cannot be loaded.
      CheckError: there is no such library here.
    """

    def __init__(self, bundle: str | os.PathLike):
        from tensorflow.core.protobuf import meta_graph_pb2

        self.library = _library()
        self.graph = self.library.TF_NewGraph()
        contents = self.library.TF_NewBuffer()
        self.session = self._call(
            self.library.TF_LoadSessionFromSavedModel,
            self.library.TF_NewSessionOptions(),
            None,
            str(bundle).encode(),
            (ctypes.c_char_p * 1)(b"serve"),
            1,
            self.graph,
            contents,
        )
        self.signatures = {
            name: signature
            for name, signature in meta_graph_pb2.MetaGraphDef.FromString(
                _content(contents)
            ).signature_def.items()
            if not name.startswith("__")
        }

    def run(
        self, name: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The outputs of signature `name`, of which strings are arrays of
        `bytes`.

        Raises:
          SessionError: the graph refuses the inputs.
        """
        signature = self.signatures[name]
        fed = [self._end(signature.inputs[key]) for key in inputs]
        fetched = [self._end(info) for info in signature.outputs.values()]
        tensors = [self._tensor(np.asarray(value)) for value in inputs.values()]
        results = (ctypes.c_void_p * len(fetched))()
        try:
            self._call(
                self.library.TF_SessionRun,
                self.session,
                None,
                (_End * len(fed))(*fed),
                (ctypes.c_void_p * len(tensors))(*tensors),
                len(fed),
                (_End * len(fetched))(*fetched),
                results,
                len(fetched),
                None,
                0,
                None,
            )
            return {
                key: self._array(result)
                for key, result in zip(signature.outputs, results, strict=True)
            }
        finally:
            for tensor in (*tensors, *results):
                if tensor:
                    self.library.TF_DeleteTensor(tensor)

    def _call(self, function, *arguments):
        status = self.library.TF_NewStatus()
        try:
            result = function(*arguments, status)
            if code := self.library.TF_GetCode(status):
                message = self.library.TF_Message(status)
                raise SessionError(code, message.decode(errors="replace"))
            return result
        finally:
            self.library.TF_DeleteStatus(status)

    def _end(self, info) -> "_End":
        operation, index = info.name.split(":")
        return _End(
            self.library.TF_GraphOperationByName(
                self.graph, operation.encode()
            ),
            int(index),
        )

    def _tensor(self, array: np.ndarray) -> int:
        if array.dtype.kind in "OS":
            return self._strings(array)
        array = np.asarray(array, order="C")
        tensor = self.library.TF_AllocateTensor(
            NUMBERS[array.dtype.type],
            (ctypes.c_int64 * array.ndim)(*array.shape),
            array.ndim,
            array.nbytes,
        )
        ctypes.memmove(
            self.library.TF_TensorData(tensor), array.ctypes.data, array.nbytes
        )
        return tensor

    def _strings(self, array: np.ndarray) -> int:
        tensor = self.library.TF_AllocateTensor(
            STRING,
            (ctypes.c_int64 * array.ndim)(*array.shape),
            array.ndim,
            array.size * STRING_BYTES,
        )
        place = self.library.TF_TensorData(tensor)
        for text in array.flat:
            self.library.TF_StringInit(place)
            self.library.TF_StringCopy(place, text, len(text))
            place += STRING_BYTES
        return tensor

    def _array(self, tensor: int) -> np.ndarray:
        library = self.library
        number = library.TF_TensorType(tensor)
        rank = library.TF_NumDims(tensor)
        shape = tuple(library.TF_Dim(tensor, axis) for axis in range(rank))
        data = library.TF_TensorData(tensor)
        size = library.TF_TensorByteSize(tensor)
        if number != STRING:
            raw = ctypes.string_at(data, size)
            return np.frombuffer(raw, DTYPES[number]).reshape(shape)
        count = int(np.prod(shape))
        texts = np.empty(count, object)
        for place in range(count):
            text = data + place * (size // count)
            texts[place] = ctypes.string_at(
                library.TF_StringGetDataPointer(text),
                library.TF_StringGetSize(text),
            )
        return texts.reshape(shape)


class _End(ctypes.Structure):
    """`TF_Output`: an operation and which of its outputs."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


# Results and arguments: p a pointer, t a text, i an int, l an int64, n a size.
_FUNCTIONS = {
    "TF_NewBuffer": "p",
    "TF_GetAllOpList": "p",
    "TF_NewGraph": "p",
    "TF_NewSessionOptions": "p",
    "TF_LoadSessionFromSavedModel": "ppptpippp",
    "TF_SessionRun": "ippppippipipp",
    "TF_GraphOperationByName": "ppt",
    "TF_NewStatus": "p",
    "TF_GetCode": "ip",
    "TF_Message": "tp",
    "TF_DeleteStatus": "ip",
    "TF_AllocateTensor": "pipin",
    "TF_TensorType": "ip",
    "TF_NumDims": "ip",
    "TF_Dim": "lpi",
    "TF_TensorData": "pp",
    "TF_TensorByteSize": "np",
    "TF_DeleteTensor": "ip",
    "TF_StringInit": "ip",
    "TF_StringCopy": "iptn",
    "TF_StringGetDataPointer": "pp",
    "TF_StringGetSize": "np",
    "_ZN10tensorflow21DisableXlaCompilationEv": "i",
}
_TYPES = {
    "p": ctypes.c_void_p,
    "t": ctypes.c_char_p,
    "i": ctypes.c_int,
    "l": ctypes.c_int64,
    "n": ctypes.c_size_t,
}


@functools.cache
def _library() -> ctypes.CDLL:
    """TensorFlow's C library, of the installed wheel."""
    spec = importlib.util.find_spec("tensorflow")  # of an installed package
    wheel = pathlib.Path(
        spec.submodule_search_locations[0]  # type: ignore[union-attr,index]
    )
    names = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")
    found = [wheel / name for name in names if (wheel / name).is_file()]
    if not found:
        raise CheckError(
            f"{wheel}: expected TensorFlow's C library (libtensorflow_cc), as "
            "its wheels for Linux hold it, received none."
        )
    library = ctypes.CDLL(str(found[0]))
    for name, letters in _FUNCTIONS.items():
        function = getattr(library, name)
        result, *arguments = [_TYPES[letter] for letter in letters]
        function.restype, function.argtypes = result, arguments
    return library


def _content(buffer: int) -> bytes:
    """Of a `TF_Buffer`, which begins with its data and their length."""
    data, length = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_size_t))[:2]
    return ctypes.string_at(data, length)


def disable_xla() -> None:
    """Switches XLA off in this process for good, as the server does."""
    _library()._ZN10tensorflow21DisableXlaCompilationEv()


def check_checksums(bundle: pathlib.Path) -> None:
    """Compares every file of a bundle with what its manifest says.

    Raises:
      CheckError: a file is missing or damaged, or the manifest is.
    """
    try:
        if (bundle / SEAL).read_text() != seal(bundle):
            raise ValueError(f"not what {SEAL} says")
        files = dict(json.loads((bundle / MANIFEST).read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckError(
            f"{bundle / MANIFEST}: expected the manifest of an export, "
            f"received none that is whole ({error!r})."
        ) from None
    if not {"saved_model.pb", "variables/variables.index"} <= set(files):
        raise CheckError(
            f"{bundle / MANIFEST}: expected checksums of a SavedModel's "
            f"files, received those of {sorted(files)}."
        )
    for name, expected in files.items():
        try:
            received: str | None = sha256(bundle / name)
        except OSError as error:
            received = error.strerror
        if received != expected:
            raise CheckError(
                f"{bundle / name}: expected SHA-256 {expected!r}, "
                f"received {received!r}."
            )


def seal(bundle: pathlib.Path) -> str:
    """The line that `sha256sum` would write of a bundle's manifest."""
    return f"{sha256(bundle / MANIFEST)}  {pathlib.Path(MANIFEST).name}\n"


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scan(bundle: pathlib.Path) -> None:
    """Reads every node that a request reaches, without running one.

    Raises:
      CheckError: a function asks to be compiled, a node is bound to a device,
        is an operation that the server does not have, runs Python, or draws
        from a state that requests would share, or a variable is read that
        loading does not restore.
    """
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    known = {
        op.name: op
        for op in op_def_pb2.OpList.FromString(
            _content(_library().TF_GetAllOpList())
        ).op
    }
    content = (bundle / "saved_model.pb").read_bytes()
    meta = next(
        graph
        for graph in saved_model_pb2.SavedModel.FromString(content).meta_graphs
        if "serve" in graph.meta_info_def.tags
    )
    nodes = {node.name: node for node in meta.graph_def.node}
    functions = {f.signature.name: f for f in meta.graph_def.library.function}
    restored = _variables(nodes, [meta.saver_def.restore_op_name.split(":")[0]])
    for name, signature in meta.signature_def.items():
        if name.startswith("__"):
            continue
        ends = [info.name.split(":")[0] for info in signature.outputs.values()]
        read = _variables(nodes, ends)
        if read - restored:
            raise CheckError(
                f"{name}: expected every variable to be restored, received "
                f"{sorted(read - restored)} that are not."
            )
        called = [nodes[place] for place in _ancestors(nodes, ends)]
        seen: set[str] = set()
        while called:
            node = called.pop()
            _check_node(name, node, known, functions)
            for function in _functions_of(node) - seen:
                seen.add(function)
                _check_compiled(name, functions[function].attr)
                called += functions[function].node_def


def _ancestors(nodes: dict, names: list[str]) -> set[str]:
    """The nodes that `names` depend on, themselves included."""
    found, left = set(), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            # "^name" is a control dependency, "name:1" a second output.
            left += [
                given.lstrip("^").split(":")[0] for given in nodes[name].input
            ]
    return found


def _variables(nodes: dict, names: list[str]) -> set[str]:
    return {
        name
        for name in _ancestors(nodes, names)
        if nodes[name].op == "VarHandleOp"
    }


def _functions_of(node) -> set[str]:
    return {
        function.name
        for value in node.attr.values()
        for function in (value.func, *value.list.func)
        if function.name
    }


def _check_node(signature: str, node, known: dict, functions: dict) -> None:
    def refuse(expected):
        raise CheckError(
            f"{signature}: expected {expected}, received node {node.name!r} "
            f"({node.op})."
        )

    _check_compiled(signature, node.attr)
    if node.op in functions:
        return
    if node.op not in known:
        refuse("operations that TensorFlow has")
    if "PyFunc" in node.op:
        refuse("nothing that runs Python")
    # A variable's handle stands on a CPU in every SavedModel.
    if node.device and node.op != "VarHandleOp":
        refuse(f"no device ({node.device})")
    op = known[node.op]
    draws = "seed" in {attribute.name for attribute in op.attr} or re.match(
        r"Rng|Random|Stateful(?!PartitionedCall)", op.name
    )
    if op.is_stateful and draws:
        refuse("random draws that depend on the request alone")


def _check_compiled(signature: str, attributes) -> None:
    if attributes["_XlaMustCompile"].b:
        raise CheckError(
            f"{signature}: expected no function to be compiled with XLA, "
            "which the server switches off, received one with jit_compile."
        )


def run_cases(session: Session, cases: dict[str, np.ndarray]) -> None:
    """Runs each case through its signature.

    Args:
      session: of the bundle.
      cases: arrays named `<signature>/<case>/input/<name>` and
        `<signature>/<case>/output/<name>`.

    Raises:
      CheckError: there are other signatures than cases, or a signature gives
        other outputs than its case, or other numbers.
      SessionError: the graph refuses a case.
    """
    names = sorted({name.rsplit("/", 2)[0] for name in cases})
    wanted = {case.split("/")[0] for case in names}
    if set(session.signatures) != wanted:
        raise CheckError(
            f"expected signatures {sorted(wanted)}, received "
            f"{sorted(session.signatures)}."
        )
    for case in names:
        inputs, outputs = (
            {
                name.rsplit("/", 1)[1]: value
                for name, value in cases.items()
                if name.startswith(f"{case}/{side}/")
            }
            for side in ("input", "output")
        )
        got = session.run(case.split("/")[0], inputs)
        if set(got) != set(outputs):
            raise CheckError(
                f"{case}: expected outputs {sorted(outputs)}, received "
                f"{sorted(got)}."
            )
        for key, value in got.items():
            # What a seed alone gives does not depend on what is summed.
            exact = case.startswith("sample/") and key == "z"
            _compare(f"{case}: {key}", value, outputs[key], exact)


def _compare(
    name: str, value: np.ndarray, expected: np.ndarray, exact: bool
) -> None:
    if value.dtype == object:  # PNG
        value, expected = _pixels(value), _pixels(expected)
    tolerance = 0 if exact else TOLERANCE
    close = np.isclose(value, expected, tolerance, tolerance, equal_nan=True)
    # A bit or a level drawn at the edge of its probability, or rounded there,
    # may fall on the other side.
    is_levels = np.allclose(expected * 255, np.round(expected * 255), 0, 1e-4)
    allowed = 1 + expected.size // 1000 if is_levels else 0
    if value.shape != expected.shape or np.sum(~close) > allowed:
        raise CheckError(f"{name}: expected {expected}, received {value}.")


def _pixels(pictures: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.stack(
        [np.asarray(Image.open(io.BytesIO(png))) / 255 for png in pictures]
    )


def warmup_requests(path: pathlib.Path) -> list:
    """The requests that the server runs before it answers any other, from a
    TFRecord file of `PredictionLog`.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    content, requests, place = path.read_bytes(), [], 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        place += 12  # its length, and a checksum of that
        log = prediction_log_pb2.PredictionLog.FromString(
            content[place : place + length]
        )
        requests.append(log.predict_log.request)
        place += length + 4  # and a checksum
    return requests


def _run_warmup(session: Session, path: pathlib.Path) -> None:
    for request in warmup_requests(path):
        name = request.model_spec.signature_name
        inputs = {
            key: (
                np.array(proto.string_val, object)
                if proto.dtype == STRING
                else np.frombuffer(proto.tensor_content, DTYPES[proto.dtype])
            ).reshape([dim.size for dim in proto.tensor_shape.dim])
            for key, proto in request.inputs.items()
        }
        rows = {len(value) for value in inputs.values()}
        for key, value in session.run(name, inputs).items():
            if {len(value)} != rows:
                raise CheckError(
                    f"{name}: {key}: expected {rows} rows, received "
                    f"{len(value)}."
                )
            if value.dtype != object and not np.all(np.isfinite(value)):
                raise CheckError(
                    f"{name}: {key}: expected finite numbers, received {value}."
                )


def check(bundle: str | os.PathLike, cases: str | None = None) -> None:
    """Everything above, of a bundle in this process.

    Args:
      bundle: directory of an export.
      cases: `.npz` of inputs and outputs as `run_cases` takes them, beside the
        bundle's own warm-up requests.

    Raises:
      CheckError: see `check_checksums`, `scan` and `run_cases`.
      SessionError: the session fails.
    """
    bundle = pathlib.Path(bundle)
    check_checksums(bundle)
    scan(bundle)
    disable_xla()
    session = Session(bundle)
    _run_warmup(session, bundle / WARMUP)
    if cases:
        with np.load(cases) as file:
            run_cases(session, dict(file))


if __name__ == "__main__":
    without_tensorflow_python()
    try:
        if len(sys.argv) not in (2, 3):
            raise CheckError(
                "expected BUNDLE, or BUNDLE CASES.npz, received "
                f"{sys.argv[1:]}."
            )
        check(*sys.argv[1:])
    except (CheckError, SessionError) as error:
        print("ERROR:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
