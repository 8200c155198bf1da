"""The pages say what is there."""

import inspect
import pathlib
import pkgutil
import re

import tensorflow as tf

import vae_tf

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts),
]
# What an API page says of: `.. autoclass:: vae_tf.VAE`, with `:members: ...`.
DOCUMENTED = re.compile(
    r"(?m)^\.\. auto(?:class|function|exception):: vae_tf\.([\w.]+)\n"
    r"(?:   :members:(.*))?"
)


def documented() -> dict[str, str]:
    """Symbol -> members named, of all API pages."""
    return {
        name: members.strip()
        for page in sorted((DOCS / "api").glob("*.md"))
        for name, members in DOCUMENTED.findall(page.read_text())
    }


class DocsTest(tf.test.TestCase):
    def test_every_symbol_named_exists(self):
        found = 0
        for page in PAGES:
            for name in re.findall(r"`vae_tf\.([\w.]+)`", page.read_text()):
                pkgutil.resolve_name(f"vae_tf.{name}")
                found += 1
        self.assertGreater(found, 10)

    def test_every_file_linked_or_shown_is_there(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
                if not target.startswith("http"):
                    self.assertTrue((page.parent / target).exists(), target)

    def test_the_api_pages_have_every_public_name(self):
        names = {name for name in documented() if "." not in name}
        self.assertEqual(names, set(vae_tf.__all__))

    def test_members_named_by_the_api_pages_exist(self):
        for name, members in documented().items():
            symbol = pkgutil.resolve_name(f"vae_tf.{name}")
            for member in filter(None, members.split(", ")):
                found = inspect.getattr_static(symbol, member)
                self.assertTrue(inspect.getdoc(found), f"{name}.{member}")

    def test_every_symbol_of_the_glossary_has_its_place_in_the_api(self):
        known = documented()
        symbols = re.findall(
            r"`vae_tf\.([\w.]+)`", (DOCS / "glossary.md").read_text()
        )
        self.assertNotEmpty(symbols)
        for symbol in symbols:
            name, _, member = symbol.partition(".")
            self.assertIn(name, known)
            if member:
                self.assertIn(member, known[name].split(", "), symbol)

    def test_the_flags_page_has_every_command_installed(self):
        commands = re.findall(
            r"(?m)^(vae-\w+) = ", (ROOT / "pyproject.toml").read_text()
        )
        self.assertNotEmpty(commands)
        for command in commands:
            self.assertIn(command, (DOCS / "flags.md").read_text())

    def test_readme_is_short(self):
        lines = (ROOT / "README.md").read_text().splitlines()
        self.assertLess(len(lines), 120)

    def test_the_glossary_has_the_tutorial_s_seven_terms(self):
        text = (DOCS / "glossary.md").read_text()
        for term in (
            "variational autoencoder",
            "loss function",
            "encoder",
            "decoder",
            "local latent variables",
            "inference",
            "mean-field and amortized inference",
        ):
            self.assertRegex(text, rf"(?m)^\| {term} \|.*`vae_tf\.")

    def test_each_sentence_of_the_tutorial_has_what_shows_it(self):
        text = (DOCS / "sentences.md").read_text()
        rows = re.findall(
            r"(?m)^\| S(\d+) \|[^|]+(?:\\\|[^|]+)*\| (.+) \|$", text
        )
        self.assertEqual([int(n) for n, _ in rows], [*range(1, 49)])
        for number, shown in rows:
            self.assertRegex(shown, r"`tests/|\]\(", f"S{number}")
            for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown):
                self.assertIn(f"def {name}(", (ROOT / file).read_text())
