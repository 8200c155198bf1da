"""Bundles outside TensorFlow: ONNX Runtime and OpenVINO."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import combined
from tensorflow.core.protobuf import saved_model_pb2

from vae_tf.serving import check
from vae_tf.serving import export as export_module
from vae_tf.serving.signatures import signatures

sys.path.append(str(pathlib.Path(__file__).parents[2]))
from benchmarks.serving import environments, runtimes  # noqa: E402

NAMES = ("encode", "decode", "reconstruct")
# Operations that both converters were seen to take (the slow test below). One
# that is not among them belongs here if that test passes with it.
CONVERTED = set(
    """Abs AddV2 All Assert BiasAdd Cast ConcatV2 Const Conv2D
    Conv2DBackpropInput EnsureShape Fill GatherV2 GreaterEqual Identity IsFinite
    Less LessEqual LogicalAnd MatMul Mul NoOp OnesLike Pack Pad Placeholder Pow
    Prod Range ReadVariableOp RealDiv Relu Reshape ReverseV2 SelectV2 Shape
    Sigmoid Softplus Split SplitV Squeeze StatefulPartitionedCall StatelessWhile
    StridedSlice Sub Tanh Transpose Unpack VarHandleOp ZerosLike""".split()
)


def reached(bundle, name):
    """The nodes that signature `name` runs, each with those it lies among."""
    content = (bundle / "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    functions = {f.signature.name: f for f in meta.graph_def.library.function}
    outputs = meta.signature_def[name].outputs.values()
    left = [(meta.graph_def.node, [info.name for info in outputs])]
    seen = set()
    while left:
        graph, ends = left.pop()
        nodes = {node.name: node for node in graph}
        ends = [end.split(":")[0] for end in ends]
        for place in check._ancestors(nodes, ends):
            yield nodes[place], nodes
            for called in check._functions_of(nodes[place]) - seen:
                seen.add(called)
                function = functions[called]
                given = [
                    tf.compat.v1.NodeDef(name=one.name, op="Placeholder")
                    for one in function.signature.input_arg
                ]
                ends = [*function.ret.values(), *function.control_ret.values()]
                left.append(([*given, *function.node_def], ends))


class OperationsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        likelihood=runtimes.LIKELIHOODS, network=("mlp", "conv")
    )
    def test_are_those_that_converters_know(self, likelihood, network):
        functions = signatures(combined(likelihood, network=network), 1)
        bundle = pathlib.Path(self.create_tempdir().full_path)
        export_module._save(
            export_module._traced({name: functions[name] for name in NAMES}),
            bundle,
        )
        for name in NAMES:
            nodes = list(reached(bundle, name))
            self.assertContainsSubset({n.op for n, _ in nodes}, CONVERTED)
            for node, others in nodes:
                if node.op == "ReverseV2":
                    axes = others[node.input[1].split(":")[0]].attr["value"]
                    self.assertEqual(tf.make_ndarray(axes.tensor).size, 1)


@pytest.mark.slow
class ConvertedTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        try:
            cls.python = environments.make(
                pathlib.Path(place.name),
                *environments.CONVERTERS,
                beside_ours=True,
            )
        except subprocess.CalledProcessError as error:
            raise unittest.SkipTest(
                f"cannot be installed here: {error.stderr}"
            ) from None

    def assert_run(self, families, names):
        directory = pathlib.Path(self.create_tempdir().full_path)
        vae = runtimes.build(*families)
        bundle, cases = runtimes.write(vae, directory, names)
        for runtime in ("onnx", "openvino"):
            answers = runtimes.ask(self.python, runtime, bundle, cases)
            for name in names:
                difference, why = answers[name]
                self.assertIsNotNone(difference, f"{runtime} {name}: {why}")
                self.assertLess(difference, 1e-4, f"{runtime} {name}")

    @parameterized.named_parameters(*runtimes.MODELS["mean-field"].items())
    def test_mean_field(self, families):
        self.assert_run(families, NAMES)

    @parameterized.named_parameters(*runtimes.MODELS["other families"].items())
    def test_decode_of(self, families):
        self.assert_run(families, ("decode",))
