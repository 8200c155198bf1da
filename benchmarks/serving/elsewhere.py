"""One bundle in another runtime: how far its answers are from TensorFlow's.

python benchmarks/serving/elsewhere.py RUNTIME BUNDLE CASES.npz

Run by its path, in an environment that has the runtime and imports nothing of
the package. The cases are arrays named `<signature>/input/<name>` and
`<signature>/output/<name>`. Prints a line of JSON for each signature: its name,
the largest difference or None, and the reason where there is none."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np

HERE = pathlib.Path(__file__).parent
CHECK = HERE.parents[1] / "vae_tf/serving/check.py"
ONNX_NAME = "reconstruction"  # ONNX has one name for an input or an output


def tensorflow(bundle, signature, inputs):
    """TensorFlow's C library, of whichever version is installed."""
    spec = importlib.util.spec_from_file_location("check", CHECK)
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    check.without_tensorflow_python()
    check.disable_xla()
    return check.Session(bundle).run(signature, inputs)


def onnx(bundle, signature, inputs):
    import onnxruntime
    import tf2onnx.convert

    onnxruntime.set_default_logger_severity(4)
    renamed = ("--rename-outputs", ONNX_NAME)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/{signature}.onnx"
        words = [
            *("tf2onnx.convert", "--saved-model", bundle, "--tag", "serve"),
            *("--signature_def", signature, "--opset", "18"),
            *("--output", path),
            *(renamed if signature == "reconstruct" else ()),
        ]
        # As from a shell, but TensorFlow is imported once.
        with mock.patch.object(sys, "argv", words):
            tf2onnx.convert.main()
        session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    outputs = zip(names, session.run(None, inputs), strict=True)
    return {
        "image" if name == ONNX_NAME else name: value for name, value in outputs
    }


def openvino(bundle, signature, inputs):
    import openvino
    import tensorflow

    loaded = tensorflow.saved_model.load(bundle)  # owns the variables
    # A processor with bfloat16 would compute in that.
    model = openvino.compile_model(
        openvino.convert_model(loaded.signatures[signature]),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    answer = model(list(inputs.values()) if len(inputs) == 1 else inputs)
    if len(model.outputs) == 1:  # has a name that no input has
        return {"image": answer[0]}
    return {output.get_any_name(): answer[output] for output in model.outputs}


def tflite(bundle, signature, inputs):
    import tensorflow
    from ai_edge_litert.interpreter import Interpreter

    content = tensorflow.lite.TFLiteConverter.from_saved_model(
        bundle, signature_keys=[signature]
    ).convert()
    run = Interpreter(model_content=content).get_signature_runner(signature)
    return run(**inputs)


def tfjs(bundle, signature, inputs):
    program = pathlib.Path(sys.executable).with_name("tensorflowjs_converter")
    with tempfile.TemporaryDirectory() as directory:
        _converted(
            str(program),
            *("--input_format=tf_saved_model", "--saved_model_tags=serve"),
            *("--output_format=tfjs_graph_model", bundle, directory),
            f"--signature_name={signature}",
        )
        # TensorFlow.js looks for the shape of EnsureShape among its inputs.
        model = pathlib.Path(directory, "model.json")
        model.write_text(
            model.read_text().replace('"EnsureShape"', '"Identity"')
        )
        given = {
            name: {"data": value.ravel().tolist(), "shape": value.shape}
            for name, value in inputs.items()
        }
        pathlib.Path(directory, "inputs.json").write_text(json.dumps(given))
        answer = subprocess.run(
            ["node", str(HERE / "graph_model.js"), directory],
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    # The converter keeps the order of the outputs, which is that of names.
    names = {"encode": ["mean", "stddev"]}.get(signature, ["image"])
    return {
        name: np.reshape(one["data"], one["shape"])
        for name, one in zip(
            names, json.loads(answer.stdout.splitlines()[-1]), strict=True
        )
    }


RUNTIMES = {
    function.__name__: function
    for function in (tensorflow, onnx, openvino, tflite, tfjs)
}
# How the runtimes say which operations they do not have.
UNKNOWN = (
    r"No Op registered for (\w+)",
    r"No conversion rule found for operations: ([\w, ]+)",
    r"Conversion is failed for: ([\w, -]+)",
    r"Unsupported Ops in the model before optimization\s+([\w, ]+)",
    r"'tf\.(\w+)' op is neither",
)


def _converted(*command: str) -> None:
    """Runs a converter."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr)


def reason(error: Exception) -> str:
    """An error in a few words."""
    message = str(error)
    for pattern in UNKNOWN:
        if found := re.search(pattern, message):
            return f"no {found.group(1).strip().split(', ')[0]}"
    lines = [line for line in message.splitlines() if "Error" in line]
    return " ".join((lines or message.splitlines() or [""])[-1].split())[:80]


def difference(outputs: dict, expected: dict) -> float:
    """The largest, absolute, and relative where numbers exceed 1 (nats)."""
    if set(outputs) != set(expected):
        raise ValueError(f"outputs {sorted(outputs)}")
    found = []
    for name, value in expected.items():
        if np.shape(outputs[name]) != value.shape:
            raise ValueError(f"{name} of shape {np.shape(outputs[name])}")
        apart = np.abs(outputs[name] - value)
        found.append(np.max(apart / np.maximum(1, np.abs(value))))
    return float(np.max(found))  # NaN, where there is one


def main(runtime: str, bundle: str, path: str) -> None:
    with np.load(path) as file:
        cases: dict = {}
        for name, value in file.items():
            signature, side, key = name.split("/")
            both = cases.setdefault(signature, {"input": {}, "output": {}})
            both[side][key] = value
    for signature, case in cases.items():
        found, why = None, ""
        try:
            outputs = RUNTIMES[runtime](bundle, signature, case["input"])
            found = difference(outputs, case["output"])
        except Exception as error:  # of any kind: it is what is asked for
            why = reason(error)
        print(json.dumps([signature, found, why]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
