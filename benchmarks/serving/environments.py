"""Environments of other runtimes, with the versions that are compared."""

import importlib.metadata
import pathlib
import subprocess
import sys
import sysconfig

CONVERTERS = (
    "tf2onnx==1.17.0",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "openvino==2026.4.1",
    "ai-edge-litert==2.3.0",
)
# Its converter imports TensorFlow Decision Forests, whose newest ydf wants
# another protobuf than TensorFlow 2.19.
TFJS = ("tensorflowjs==4.22.0", "ydf==0.11.0")
TFJS_NPM = "@tensorflow/tfjs@4.22.0"
# TensorFlow's own, which converters load it with.
SHARED = ("numpy", "protobuf", "flatbuffers", "ml_dtypes")


def make(
    directory: pathlib.Path, *packages: str, beside_ours: bool = False
) -> pathlib.Path:
    """The Python of a new virtual environment with these packages.

    Args:
      directory: where it is made.
      *packages: as pip names them.
      beside_ours: whether what is installed here, TensorFlow first of all, can
        be imported there, too.

    Raises:
      subprocess.CalledProcessError: a package cannot be had; its `stderr`
        says why.
    """
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin/python"
    command = [str(python), "-m", "pip", "install", "--quiet"]
    if beside_ours:
        (place,) = directory.glob("lib/python*/site-packages")
        ours = sysconfig.get_paths()["purelib"]
        (place / "ours.pth").write_text(f"{ours}\n")
        versions = directory / "versions.txt"
        versions.write_text(
            "".join(
                f"{name}=={importlib.metadata.version(name)}\n"
                for name in SHARED
            )
        )
        command += ["--constraint", str(versions)]
    subprocess.run(
        [*command, *packages], check=True, capture_output=True, text=True
    )
    return python
