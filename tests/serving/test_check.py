import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import small_vae
from tensorflow.core.protobuf import saved_model_pb2

import vae_tf
from vae_tf.serving import check


def saved(path, function, module=None, name="decode"):
    """A bundle of one signature `z [N, 2] -> ...`."""
    spec = tf.TensorSpec((None, 2), tf.float32, "z")
    traced = tf.function(function, [spec]).get_concrete_function()
    tf.saved_model.save(
        module or tf.Module(), str(path), signatures={name: traced}
    )
    return path


def run_as_script(*arguments, code="runpy.run_path(sys.argv[0], {}, N)"):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import runpy, sys; N = '__main__'; "
            f"sys.argv = sys.argv[1:]; {code}",
            check.__file__,
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
    )


class ScanTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "bundle"

    def test_accepts_what_a_server_runs(self):
        module = tf.Module()
        module.weight = tf.Variable(tf.ones((2, 3)))

        def function(z):
            noise = tf.random.stateless_normal((3,), (1, 2))
            image = tf.while_loop(
                lambda i, _: i < 3,
                lambda i, x: (i + 1, x + noise),
                (0, z @ module.weight),
            )[1]
            tf.debugging.assert_positive(tf.shape(z)[0])
            return {"image": image}

        check.scan(saved(self.path, function, module))

    def test_refuses_the_obvious_way_of_saving_a_keras_model(self):
        # It loads in Python, and fails in TensorFlow Serving.
        vae, z = small_vae(), np.ones((1, 2), np.float32)
        module = tf.Module()
        module.vae = vae
        saved(self.path, lambda z: {"image": vae.decoder(z).mean()}, module)
        python = tf.saved_model.load(str(self.path)).signatures["decode"]
        self.assertAllClose(
            python(z=tf.constant(z))["image"], vae.decoder(z).mean()
        )
        with self.assertRaisesRegex(check.CheckError, "to be restored"):
            check.scan(self.path)
        with self.assertRaisesRegex(check.SessionError, "Could not find var"):
            check.Session(self.path).run("decode", {"z": z})

    @parameterized.named_parameters(
        ("compiled", tf.function(lambda z: z + 1, jit_compile=True)),
        (
            "compiled_inside",
            lambda z: tf.map_fn(
                tf.function(lambda row: row + 1, jit_compile=True), z
            ),
        ),
    )
    def test_refuses_xla(self, function):
        saved(self.path, lambda z: {"image": function(z)})
        with self.assertRaisesRegex(check.CheckError, "jit_compile"):
            check.scan(self.path)
        # And so it would fail: in a process as the server is.
        result = run_as_script(
            self.path,
            code="c = runpy.run_path(sys.argv[0]); import numpy; "
            "c['without_tensorflow_python'](); c['disable_xla'](); "
            "c['Session'](sys.argv[1]).run('decode', "
            "{'z': numpy.ones((1, 2), 'float32')})",
        )
        self.assertIn("XLA compilation disabled", result.stderr)

    @parameterized.named_parameters(
        ("normal", lambda z: tf.random.normal((1,))),
        ("generator", lambda z: GENERATOR.normal((1,))),
        ("shuffled", lambda z: tf.random.shuffle(z)),
        (
            "categorical",
            lambda z: tf.cast(tf.random.categorical(z, 1), "float"),
        ),
        (
            "inside_a_branch",
            lambda z: tf.switch_case(
                tf.shape(z)[0],
                [lambda: tf.zeros((1,)), lambda: tf.random.normal((1,))],
            ),
        ),
        (
            "inside_a_loop",
            lambda z: tf.map_fn(lambda row: row + tf.random.normal((1,)), z),
        ),
    )
    def test_refuses_random_draws_of_a_shared_state(self, draw):
        module = tf.Module()
        module.generator = GENERATOR
        saved(self.path, lambda z: {"image": z + draw(z)}, module)
        with self.assertRaisesRegex(check.CheckError, "random draws"):
            check.scan(self.path)

    def test_refuses_python(self):
        saved(
            self.path,
            lambda z: {"image": tf.numpy_function(np.sin, [z], tf.float32)},
        )
        with self.assertRaisesRegex(check.CheckError, "runs Python"):
            check.scan(self.path)

    def test_refuses_a_device(self):
        def function(z):
            with tf.device("/GPU:0"):
                return {"image": z + 1}

        saved(self.path, function)
        with self.assertRaisesRegex(check.CheckError, "no device .*GPU"):
            check.scan(self.path)

    def test_refuses_an_operation_that_there_is_not(self):
        saved(self.path, lambda z: {"image": tf.math.lgamma(z)})
        file = self.path / "saved_model.pb"
        content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        for function in content.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                node.op = node.op.replace("Lgamma", "LogGamma")
        file.write_bytes(content.SerializeToString())
        with self.assertRaisesRegex(check.CheckError, "operations that"):
            check.scan(self.path)


class CasesTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "bundle"
        self.z = np.ones((1, 2), np.float32)

    def cases(self, output, key="image", name="decode"):
        return {f"{name}/1/input/z": self.z, f"{name}/1/output/{key}": output}

    def run_cases(self, function, cases, name="decode"):
        saved(self.path, function, name=name)
        check.run_cases(check.Session(self.path), cases)

    def test_accepts_what_agrees(self):
        cases = self.cases(2 * self.z * (1 + 5e-6))
        self.run_cases(lambda z: {"image": 2 * z}, cases)

    def test_rows_may_lie_in_any_order_in_memory(self):
        saved(self.path, lambda z: {"image": z})
        z = np.arange(2000, dtype=np.float32).reshape(2, 1000).T
        self.assertAllEqual(
            check.Session(self.path).run("decode", {"z": z})["image"], z
        )

    def test_strings_of_any_length(self):
        spec = tf.TensorSpec((None,), tf.string, "text")
        traced = tf.function(
            lambda text: {"twice": text + text}, [spec]
        ).get_concrete_function()
        tf.saved_model.save(
            tf.Module(), str(self.path), signatures={"double": traced}
        )
        session = check.Session(self.path)
        texts = [b"", b"a\0b\0", bytes(range(256)) * 5000]
        array = np.empty(3, object)
        array[:] = texts
        found = session.run("double", {"text": array})["twice"]
        self.assertEqual(list(found), [text + text for text in texts])
        short = np.array([b"one", b"three"])  # as .npz keeps them
        found = session.run("double", {"text": short})["twice"]
        self.assertEqual(list(found), [b"oneone", b"threethree"])

    def test_refuses_other_numbers(self):
        with self.assertRaisesRegex(check.CheckError, "decode/1: image"):
            self.run_cases(lambda z: {"image": 2 * z}, self.cases(self.z))

    def test_z_of_a_seed_is_equal_to_the_last_bit(self):
        cases = self.cases(np.nextafter(2 * self.z, 3), "z", "sample")
        with self.assertRaisesRegex(check.CheckError, "sample/1: z"):
            self.run_cases(lambda z: {"z": 2 * z}, cases, "sample")
        # That of an image is a sum, which has no order.
        cases = self.cases(np.nextafter(2 * self.z, 3), "z", "encode_sample")
        shutil.rmtree(self.path)
        self.run_cases(lambda z: {"z": 2 * z}, cases, "encode_sample")

    def test_a_draw_at_the_edge_of_its_probability_may_flip(self):
        bits = np.ones((1, 8))
        bits[0, 0] = 0
        self.run_cases(
            lambda z: {"image": tf.tile(z, (1, 4))}, self.cases(bits)
        )
        bits[0, 1] = 0
        with self.assertRaisesRegex(check.CheckError, "decode/1: image"):
            check.run_cases(check.Session(self.path), self.cases(bits))

    def test_pictures_are_compared_as_pixels(self):
        def png(level):
            picture = tf.fill((4, 3, 1), tf.constant(level, tf.uint8))
            return np.array([tf.io.encode_png(picture, 9).numpy()])

        def function(z):
            picture = tf.fill((4, 3, 1), tf.constant(7, tf.uint8))
            return {"image_bytes": tf.stack([tf.io.encode_png(picture, 0)])}

        self.run_cases(function, self.cases(png(7), "image_bytes"))
        session = check.Session(self.path)
        self.assertStartsWith(
            session.run("decode", {"z": self.z})["image_bytes"][0], b"\x89PNG"
        )
        with self.assertRaisesRegex(check.CheckError, "image_bytes"):
            check.run_cases(session, self.cases(png(8), "image_bytes"))

    def test_refuses_other_signatures_and_outputs(self):
        cases = self.cases(self.z)
        more = {k.replace("decode", "encode"): v for k, v in cases.items()}
        with self.assertRaisesRegex(check.CheckError, r"received \['decode'\]"):
            self.run_cases(lambda z: {"image": z}, cases | more)
        with self.assertRaisesRegex(
            check.CheckError, r"\['picture'\], received \['image'\]"
        ):
            check.run_cases(
                check.Session(self.path), self.cases(self.z, "picture")
            )

    def test_the_graph_refuses_what_it_cannot_take(self):
        saved(self.path, lambda z: {"image": z})
        session = check.Session(self.path)
        with self.assertRaisesRegex(check.SessionError, "float") as caught:
            session.run("decode", {"z": self.z.astype(np.float64)})
        self.assertEqual(caught.exception.code, 3)  # INVALID_ARGUMENT
        with self.assertRaises(check.SessionError):
            check.Session(self.path.with_name("absent"))


class ExportedTest(tf.test.TestCase):
    """check.py, by its path, on what was exported."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.exported = vae_tf.export(small_vae(), cls.directory)

    def copy(self):
        """A bundle to damage."""
        path = pathlib.Path(self.create_tempdir().full_path) / "1"
        return pathlib.Path(shutil.copytree(self.exported, path))

    def test_passes_without_tensorflow_s_python(self):
        result = run_as_script(
            self.exported,
            code="runpy.run_path(sys.argv[0], {}, N); "
            "assert 'tensorflow.python' not in sys.modules; "
            "assert not any(n.startswith('vae_tf') for n in sys.modules)",
        )
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_refuses_what_was_damaged(self):
        files = [path for path in self.exported.rglob("*") if path.is_file()]
        self.assertLen(files, 7)
        for file in files:
            bundle = self.copy()
            damaged = bundle / file.relative_to(self.exported)
            content = damaged.read_bytes()
            flipped = bytearray(content)
            flipped[len(content) // 2] ^= 4
            for other in (bytes(flipped), content[:-1], b"", None):
                if other is None:
                    damaged.unlink()
                else:
                    damaged.write_bytes(other)
                with self.assertRaises(check.CheckError, msg=file.name):
                    check.check_checksums(bundle)

    def test_says_what_to_name(self):
        for arguments in ((), ("a", "b", "c")):
            result = run_as_script(*arguments)
            self.assertEqual(result.returncode, 2)
            self.assertStartsWith(result.stderr, "ERROR: expected BUNDLE")

    def test_a_damaged_bundle_is_one_error_line(self):
        bundle = self.copy()
        (bundle / "variables/variables.index").write_bytes(b"")
        result = run_as_script(bundle)
        self.assertEqual(result.returncode, 2)
        self.assertRegex(
            result.stderr.splitlines()[-1],
            "^ERROR: .*variables.index: expected SHA-256 .* received ",
        )
        for missing in ("variables", "assets.extra", "saved_model.pb"):
            bundle = self.copy()
            path = bundle / missing
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            with self.assertRaises(check.CheckError):
                check.check_checksums(bundle)

    def test_a_manifest_of_nothing_is_refused(self):
        bundle = self.copy()
        (bundle / check.MANIFEST).write_text(json.dumps({"sha256": {}}))
        (bundle / check.SEAL).write_text(check.seal(bundle))
        with self.assertRaisesRegex(check.CheckError, "expected checksums"):
            check.check_checksums(bundle)


GENERATOR = tf.random.Generator.from_seed(1)
