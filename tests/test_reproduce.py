"""Recipes of published figures: whether they run, and where their rows go."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib

import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from benchmarks import reproduce

FIRST, *OTHERS = reproduce.RECIPES
SHORT = "grey"  # of one stage


class ReproduceTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.create_tempdir().full_path)

    @parameterized.parameters(*((name,) for name in reproduce.RECIPES))
    def test_a_recipe_says_every_setting_of_its_run(self, name):
        recipe = json.loads(reproduce.RECIPES[name].read_text())
        for stage in recipe.get("stages", [{}]):
            said = recipe["config"] | stage
            changed = dataclasses.asdict(vae_tf.Config(**said))
            for setting, value in said.items():
                self.assertEqual(
                    json.loads(json.dumps(changed[setting])), value
                )
            left = {k for k, v in changed.items() if k not in said}
            # Where, what is looked at, what the data or the machine decides.
            self.assertLessEqual(
                left,
                {
                    "seed",
                    "run_dir",
                    "initial_run",
                    "data_dir",
                    "resume",
                    "checkpoint_minutes",
                    "strategy",
                    "tensorboard",
                    "jit_compile",
                    "mixed_precision",
                    "binarization",
                    "dequantization",
                    "image_size",
                    "channels",
                    "num_samples",
                    "hidden_units",
                    "kl_warmup_epochs",
                },
            )
        self.assertIn(recipe["measure"], ("elbo", "log_marginal_likelihood"))
        self.assertNotEmpty(recipe["seeds"])

    def test_runs(self):
        self.assert_runs(SHORT)

    @parameterized.parameters(
        *((name,) for name in reproduce.RECIPES if name != SHORT)
    )
    @pytest.mark.slow
    def test_others_run(self, name):
        self.assert_runs(name)

    def assert_runs(self, name):
        before = reproduce.RESULTS.read_text()
        rows = []
        for _ in range(2):  # the second time from what is there
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                reproduce.main({"recipe": name, "quick": True})
            rows.append(out.getvalue().splitlines()[-1])
        self.assertEqual(rows[0], rows[1])
        cells = [cell.strip() for cell in rows[0].split("|")[1:-1]]
        self.assertLen(cells, len(reproduce.COLUMNS))
        self.assertEqual(cells[0], f"`{name}`")
        found = json.loads(
            pathlib.Path(
                f"runs/reproduce/{name}-{cells[1]}/evaluation-test.json"
            ).read_text()
        )
        self.assertEqual(cells[5], f"{found['elbo']:.2f}")
        self.assertEqual(reproduce.RESULTS.read_text(), before)

    def test_a_row_takes_the_place_of_its_own(self):
        def row(name, seed, rest):
            return f"| `{name}` | {seed} | {rest} |"

        last = OTHERS[-1] if OTHERS else FIRST
        page = f"above\n\n{reproduce.HEAD}\nbelow\n"
        for name, seed, rest in (
            (last, 1, "a"),
            (FIRST, 10, "b"),
            (FIRST, 2, "c"),
            (FIRST, 10, "d"),
        ):
            page = reproduce.with_row(page, row(name, seed, rest))
        rows = [row(FIRST, 2, "c"), row(FIRST, 10, "d"), row(last, 1, "a")]
        if last == FIRST:
            rows = [rows[2], *rows[:2]]
        table = "".join(f"{each}\n" for each in rows)
        self.assertEqual(page, f"above\n\n{reproduce.HEAD}{table}\nbelow\n")
        with self.assertRaisesRegex(vae_tf.UserError, "expected a table"):
            reproduce.with_row("no table", rows[0])


if __name__ == "__main__":
    tf.test.main()
