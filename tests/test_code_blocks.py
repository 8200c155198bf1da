"""What the pages tell a reader to type: Python is run; commands are parsed as
they parse it, and those of README and of two guides are run in the order of the
page. (Code cells are run when the site is built, docs/serving.md by
tests/serving/test_deploy.py.)"""

import contextlib
import doctest
import importlib
import importlib.util
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from vae_tf import command_line
from vae_tf.commands import evaluate, export, report
from vae_tf.config import Config
from vae_tf.explorer import __main__ as explorer
from vae_tf.runs import launch
from vae_tf.serving import client_commands

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    if "_build" not in page.parts
)
COMMANDS = {
    "train.py": Config,
    "vae-train": Config,
    "evaluate.py": evaluate.Evaluation,
    "vae-evaluate": evaluate.Evaluation,
    "export.py": export.Export,
    "vae-export": export.Export,
    "vae-report": report.Report,
    "vae_tf.commands.report": report.Report,
    "vae-explorer": explorer.Explore,
    "vae_tf.explorer": explorer.Explore,
    "vae-launch": launch.Launch,
    "vae_tf.serving.client status": client_commands.Status,
    "vae_tf.serving.client sample": client_commands.Sheet,
}
# Of each training, so that it takes seconds, unless the page says otherwise,
SMALL = ("--dataset", "digits", "--hidden_units", "16")
# or though it does.
SHORT = ("--epochs", "1", "--figures_every", "0")


def fenced(page: pathlib.Path, language: str) -> list[str]:
    """Blocks of a language; of none, for the empty name."""
    blocks = re.findall(r"(?ms)^```(\S*)[^\n]*\n(.*?)^```", page.read_text())
    return [block for name, block in blocks if name == language]


def commands(page: pathlib.Path, *, inline: bool = True) -> list[str]:
    """Lines of commands, in blocks and, as `inline`, between backticks."""
    blocks = fenced(page, "") + fenced(page, "bash")
    lines = "".join(blocks).replace("\\\n", " ").split("\n")
    if inline:
        lines += re.findall(
            r"(?<!`)`((?:python|vae-|make )[^`\n]+)`", page.read_text()
        )
    return [line.split(" #")[0].strip() for line in lines]


class CodeBlocksTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        *(
            page.relative_to(ROOT).as_posix()
            for page in PAGES
            if fenced(page, "python")
            and page.name not in ("README.md", "serving.md")
        )
    )
    @pytest.mark.slow
    def test_python_of_a_page_runs(self, page):
        self.run_python(page)

    def test_python_of_readme_prints_what_it_shows(self):
        printed = self.run_python("README.md")
        (shown,) = (
            text for text in fenced(ROOT / "README.md", "") if "q(z|x)" in text
        )
        for line in shown.strip().split("\n"):
            if "[" not in line:  # Numbers differ from machine to machine.
                self.assertIn(line, printed)

    def run_python(self, page) -> str:
        """What its blocks print, in an empty directory."""
        before = os.getcwd()
        os.chdir(self.create_tempdir().full_path)
        try:
            for block in fenced(ROOT / page, "python"):
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(block, page, "exec"), {})
        finally:
            os.chdir(before)
        return printed.getvalue()

    @parameterized.parameters("config", "encoder", "decoder")
    def test_docstrings_run(self, room):
        module = importlib.import_module(f"vae_tf.{room}")
        given = {"images": tf.zeros((4, 28, 28, 1)), "z": tf.zeros((3, 4, 2))}
        found = doctest.testmod(module, extraglobs=given)
        self.assertGreater(found.attempted, 0)
        self.assertEqual(found.failed, 0)

    def test_no_other_docstring_has_code(self):
        rooms = {
            path.stem
            for path in (ROOT / "vae_tf").rglob("*.py")
            if ">>> " in path.read_text()
        }
        self.assertEqual(rooms, {"config", "encoder", "decoder"})

    @parameterized.parameters(
        *(page.relative_to(ROOT).as_posix() for page in PAGES)
    )
    def test_commands_parse(self, page):
        for line in commands(ROOT / page):
            self.check(line)

    def test_there_are_commands(self):
        lines = [line for page in PAGES for line in commands(page)]
        found = [line for line in lines if self.check(line)]
        self.assertGreater(len(found), 60)

    @parameterized.parameters(
        "README.md", "docs/guides/start.md", "docs/guides/training.md"
    )
    @pytest.mark.slow
    def test_commands_of_a_page_run(self, page):
        home = pathlib.Path(self.create_tempdir().full_path)
        folder = home / "path/to/folder"
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3))
        for number, image in enumerate(pixels.astype(np.uint8)):
            tf.keras.utils.save_img(folder / f"{number}.png", image)
        # What a page takes for granted.
        self.run_command("python train.py", home)
        ran = [
            line
            for line in commands(ROOT / page, inline=False)
            if self.run_command(line, home)
        ]
        self.assertNotEmpty(ran)
        for line in ran:
            if "--out" in line:
                self.assertTrue((home / shlex.split(line)[-1]).exists(), line)

    def run_command(self, line, home) -> bool:
        """Whether it is one that comes to an end without a server."""
        words = shlex.split(line)
        script = words[1:2] and words[1] in (
            "train.py",
            "evaluate.py",
            "export.py",
        )
        if not script and not re.match(
            r"python -m vae_tf\.(commands|serving.*--url bundle)", line
        ):
            return False
        words[0] = sys.executable
        if script:
            words[1] = str(ROOT / words[1])
        if line.startswith("python train.py"):
            words[2:] = [*SMALL, *words[2:], *SHORT]
        subprocess.run(words, cwd=home, check=True)
        return True

    def check(self, line) -> bool:
        """Whether it is a command of ours, which then takes its arguments."""
        if not re.match(r"python |vae-\w+( |$)|make ", line):
            return False
        words = shlex.split(line)
        if words[:1] == ["make"]:
            self.assertIn(f"\n{words[1]}:", (ROOT / "Makefile").read_text())
            return True
        if words[:2] == ["python", "-m"] and len(words) > 2:
            module = words[2]
            if module.startswith("benchmarks."):
                self.assertIsNotNone(importlib.util.find_spec(module), line)
                return True
            words = words[2:]
            if module == "vae_tf.serving.client":
                words = [f"{module} {words[1]}", *words[2:]]
        elif words[:1] == ["python"]:
            words = words[1:]
        if not words or words[0] not in COMMANDS:
            return False
        if words[0] == "vae-launch":  # What follows is train.py's.
            split = words.index("--") if "--" in words else len(words)
            self.check(shlex.join(["vae-train", *words[split + 1 :]]))
            words = words[:split]
        if "--help" in words:
            return True
        settings, given = COMMANDS[words[0]], []
        with mock.patch.object(sys, "argv", words):
            command_line.run(settings, given.append, "")
        settings(**given[0])
        return True


if __name__ == "__main__":
    tf.test.main()
