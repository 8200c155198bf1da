"""The pages say what is there."""

import pathlib
import pkgutil
import re

import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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

    def test_the_glossary_has_the_tutorial_s_seven_terms(self):
        text = (ROOT / "docs/glossary.md").read_text()
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
        text = (ROOT / "docs/sentences.md").read_text()
        rows = re.findall(
            r"(?m)^\| S(\d+) \|[^|]+(?:\\\|[^|]+)*\| (.+) \|$", text
        )
        self.assertEqual([int(n) for n, _ in rows], [*range(1, 49)])
        for number, shown in rows:
            self.assertRegex(shown, r"`tests/|\]\(", f"S{number}")
            for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown):
                self.assertIn(f"def {name}(", (ROOT / file).read_text())
