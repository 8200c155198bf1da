"""The rooms and who may enter which: DESIGN in a form that fails."""

import ast
import importlib
import pathlib
import subprocess
import sys

import tensorflow as tf

import vae_tf

PACKAGE = pathlib.Path(vae_tf.__file__).parent
# A module imports only from those above it.
ORDER = [
    "config",
    "files",
    "cache",
    "disk_images",
    "command_line",
    "splits",
    "resizing",
    "tfds_source",
    "folder_source",
    "sources",
    "noise",
    "executions",
    "data",
    "networks",
    "posteriors",
    "priors",
    "likelihoods",
    "encoder",
    "decoder",
    "objectives",
    "refusals",
    "vae",
    "evaluation",
    "latent_points",
    "figures",
    "snapshots",
    "building",
    "runs",
    "gallery",
    "checkpoints",
    "callbacks",
    "report",
    "measurement",
    "training",
    "serving.signatures",
    "serving.check",
    "serving.warmup",
    "serving.manifest",
    "serving.versions",
    "serving.export",
    "serving.transports",
    "serving.rest_transport",
    "serving.grpc_transport",
    "serving.client",
]
IMPORT_NONE_OF_OURS = [
    "noise",
    "executions",
    "networks",
    "posteriors",
    "priors",
    "likelihoods",
    "objectives",
    "serving.check",
]


def imports_of_ours(module):
    """The modules of this package that a module imports, anywhere in it."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module.removeprefix("vae_tf").lstrip(".")
            if node.module.split(".")[0] == "vae_tf":
                for alias in node.names:
                    names = [
                        ".".join(filter(None, [inside, alias.name])),
                        inside,
                    ]
                    found |= {name for name in names if name in ORDER}
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{module}: expected absolute imports")
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= {alias.name.removeprefix("vae_tf.")} & set(ORDER)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "vae_tf":  # import vae_tf; vae_tf.name
                found.add(vae_tf._HOMES.get(node.attr, module))
    found.discard(module)
    return found


class ArchitectureTest(tf.test.TestCase):
    def test_every_module_has_its_place(self):
        files = PACKAGE.rglob("*.py")
        names = {
            ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
            for file in files
            if file.name != "__init__.py"
        }
        self.assertSameElements(names, ORDER)

    def test_no_import_runs_up(self):
        for place, module in enumerate(ORDER):
            above = set(ORDER[:place])
            self.assertEmpty(imports_of_ours(module) - above, module)

    def test_families_and_objectives_import_none_of_ours(self):
        for module in IMPORT_NONE_OF_OURS:
            self.assertEmpty(imports_of_ours(module), module)

    def test_the_check_sees_an_import(self):
        self.assertIn("encoder", imports_of_ours("vae"))
        self.assertIn("objectives", imports_of_ours("vae"))

    def test_every_module_has_its_tests(self):
        tests = pathlib.Path(__file__).parent
        for module in ORDER:
            name = f"test_{module.replace('.', '_')}.py"
            self.assertTrue((tests / name).is_file(), name)

    def test_public_names_exist_and_are_documented(self):
        for name in vae_tf.__all__:
            self.assertTrue(getattr(vae_tf, name).__doc__, name)
        self.assertContainsSubset(vae_tf.__all__, dir(vae_tf))
        with self.assertRaisesRegex(AttributeError, "no attribute 'Vae'"):
            _ = vae_tf.Vae

    def test_config_needs_no_tensorflow(self):
        code = (
            "import sys, vae_tf; vae_tf.Config(latent_dim=2); "
            "import vae_tf.command_line; "
            "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_words(self):
        # DESIGN section 8: the field's words, never a rival's.
        rivals = {"mu", "sigma", "logvar", "log_var", "recon_x", "x_hat"}
        for module in ORDER:
            path = PACKAGE / (module.replace(".", "/") + ".py")
            tree = ast.parse(path.read_text())
            names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
            self.assertEmpty(names & rivals, module)
            importlib.import_module(f"vae_tf.{module}")
