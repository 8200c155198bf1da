"""The rooms and who may enter which: DESIGN in a form that fails."""

import ast
import importlib
import pathlib
import subprocess
import sys

import tensorflow as tf

import vae_tf

PACKAGE = pathlib.Path(vae_tf.__file__).parent
# The house: the front, then the wings, each with its rooms. A file imports only
# from those above it.
HOUSE = {
    "": [
        "settings",
        "config",
        "command_line",
        "noise",
        "pixels",
        "parts",
        "networks",
        "posteriors",
        "priors",
        "likelihoods",
        "objectives",
        "encoder",
        "decoder",
        "refusals",
        "metrics",
        "executions",
        "passes",
        "feeds",
        "vae",
    ],
    "data": [
        "files",
        "cache",
        "disk_images",
        "splits",
        "resizing",
        "tfds",
        "listing",
        "folder",
        "levels",
        "arrays",
        "npz",
        "sources",
        "support",
        "conversion",
        "pipeline",
    ],
    "evaluation": [
        "compiled",
        "linear_gaussian",
        "linear_probe",
        "errors_of_means",
        "exact",
        "aggregate_posterior",
        "decomposition",
        "pareto",
        "moments",
        "estimates",
        "growth",
        "importance",
        "hamiltonian",
        "annealing",
        "annealed",
        "comparison",
    ],
    "inference": [
        "families",
        "weights",
        "ascent",
        "local",
        "gaps",
        "plane",
        "explanation",
        "table",
        "local_vae",
        "held_out",
    ],
    "pictures": [
        "latent_points",
        "figures",
        "measures",
        "inferred",
        "snapshots",
        "sheet",
        "gallery",
    ],
    "runs": [
        "sums",
        "lock",
        "reading",
        "interruption",
        "workers",
        "health",
        "building",
        "averaging",
        "directory",
        "checkpoints",
        "background",
        "callbacks",
        "report_plane",
        "report",
        "measurement",
        "comparing",
        "origin",
        "training",
        "launch",
    ],
    "serving": [
        "rows",
        "orientation",
        "image_bytes",
        "signatures",
        "check",
        "warmup",
        "manifest",
        "versions",
        "export",
        "errors",
        "arguments",
        "endpoints",
        "replies",
        "transports",
        "rest_transport",
        "grpc_transport",
        "bundle_transport",
        "splitting",
        "client_commands",
        "client",
    ],
    "explorer": ["planes", "survey", "server", "__main__"],
    "commands": ["train", "evaluate", "export", "report"],
}
ORDER = [
    f"{wing}.{room}".lstrip(".")
    for wing, rooms in HOUSE.items()
    for room in rooms
]
WINGS = [wing for wing in HOUSE if wing]
IMPORT_NONE_OF_OURS = [
    "noise",
    "pixels",
    "parts",
    "networks",
    "posteriors",
    "priors",
    "objectives",
    "executions",
    "serving.check",
]
# Run by its path on machines that have nothing else of the package.
ONE_FILE = ["serving.check"]
MAX_LINES = 420


def path_of(module):
    return PACKAGE / (module.replace(".", "/") + ".py")


def imports_of_ours(module):
    """The modules of this package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
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
        # Between files, and so between wings: all of a wing's are above all of
        # the next one's. Without an arrow up there is no circle.
        for place, module in enumerate(ORDER):
            above = set(ORDER[:place])
            self.assertEmpty(imports_of_ours(module) - above, module)

    def test_families_and_objectives_import_none_of_ours(self):
        for module in IMPORT_NONE_OF_OURS:
            self.assertEmpty(imports_of_ours(module), module)

    def test_the_check_sees_an_import(self):
        self.assertIn("encoder", imports_of_ours("vae"))
        self.assertIn("objectives", imports_of_ours("vae"))
        # Inside a function, by the name of a wing, and through the door.
        self.assertIn(
            "serving.grpc_transport", imports_of_ours("serving.client")
        )
        self.assertIn("runs.checkpoints", imports_of_ours("runs.training"))
        self.assertIn("runs.training", imports_of_ours("commands.train"))

    def test_a_wing_is_its_docstring_and_no_code(self):
        for wing in WINGS:
            tree = ast.parse((PACKAGE / wing / "__init__.py").read_text())
            self.assertLen(tree.body, 1, wing)
            self.assertTrue(ast.get_docstring(tree), wing)

    def test_rooms_are_small(self):
        lengths = {
            module: len(path_of(module).read_text().splitlines())
            for module in ORDER
        }
        for module in ORDER:
            if module not in ONE_FILE:
                self.assertLess(lengths[module], MAX_LINES, module)
        small = [module for module in ORDER if lengths[module] < 180]
        self.assertGreater(len(small), len(ORDER) / 2)

    def test_every_module_has_its_tests(self):
        tests = pathlib.Path(__file__).parent
        for module in ORDER:
            *wing, room = module.split(".")
            if wing == ["commands"]:
                continue  # together, as a user runs them: test_scripts.py
            place = tests.joinpath(*wing, f"test_{room}.py")
            self.assertTrue(place.is_file(), place)

    def test_public_names_exist_and_are_documented(self):
        for name in vae_tf.__all__:
            self.assertTrue(getattr(vae_tf, name).__doc__, name)
        self.assertContainsSubset(vae_tf.__all__, dir(vae_tf))
        with self.assertRaisesRegex(AttributeError, "no attribute 'Vae'"):
            _ = vae_tf.Vae

    def test_config_needs_no_tensorflow(self):
        rooms = [module for module in ORDER if module.startswith("commands.")]
        code = (
            "import importlib, sys, vae_tf; vae_tf.Config(latent_dim=2); "
            "import vae_tf.command_line; "
            f"[importlib.import_module('vae_tf.' + r) for r in {rooms}]; "
            "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_first_step_waits_for_nothing_that_draws_or_classifies(self):
        code = (
            "import sys, vae_tf\n"
            "from vae_tf import command_line\n"
            "with command_line.without_wrappers():\n"
            "    from vae_tf import VAE\n"
            "vae_tf.train\n"
            "late = {'sklearn', 'scipy.stats', 'matplotlib'}\n"
            "late &= set(sys.modules)\n"
            "import sklearn.neighbors, matplotlib.figure\n"
            "sys.exit(f'{late} were imported' if late else 0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_words(self):
        # DESIGN section 8: the field's words, never a rival's.
        rivals = {"mu", "sigma", "logvar", "log_var", "recon_x", "x_hat"}
        for module in ORDER:
            tree = ast.parse(path_of(module).read_text())
            names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
            self.assertEmpty(names & rivals, module)
            importlib.import_module(f"vae_tf.{module}")

    def test_no_mark_of_a_test_is_lost(self):
        # Parameters make new tests of what is below them, and not of a mark
        # above: what is marked slow would not be.
        for path in pathlib.Path(__file__).parent.rglob("test_*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                marked = False
                for decorator in getattr(node, "decorator_list", ()):
                    words = ast.unparse(decorator)
                    lost = marked and words.startswith("parameterized.")
                    self.assertFalse(lost, f"{path}: {node.name}")
                    marked |= words.startswith("pytest.mark.")
