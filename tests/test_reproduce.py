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
                    "num_samples",  # of the ELBO, one
                },
            )
        self.assertIn(recipe["measure"], ("elbo", "log_marginal_likelihood"))
        self.assertNotEmpty(recipe["seeds"])

    @parameterized.parameters(*((name,) for name in reproduce.RECIPES))
    @pytest.mark.slow
    def test_runs(self, name):
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
                f"runs/reproduce/{name}-quick-{cells[1]}/evaluation-test.json"
            ).read_text()
        )
        self.assertEqual(cells[5], f"{found['elbo']:.2f}")
        self.assertEqual(reproduce.RESULTS.read_text(), before)

    def test_a_run_of_other_settings_is_no_row(self):
        recipe = json.loads(reproduce.RECIPES["grey"].read_text())
        run = pathlib.Path("runs/reproduce") / f"grey-{recipe['seeds'][0]}"
        run.mkdir(parents=True)
        before = reproduce.RESULTS.read_text()
        saved = recipe["config"] | {"latent_dim": 3}
        (run / "config.json").write_text(json.dumps(saved))
        (run / "evaluation-test.json").write_text("{}")
        with self.assertRaisesRegex(
            vae_tf.UserError, f"{run} .*latent_dim is 20, received one with 3"
        ):
            reproduce.main({"recipe": "grey"})
        self.assertEqual(reproduce.RESULTS.read_text(), before)

    @parameterized.named_parameters(
        ("reached", -90.0, (40.0, 19.0), "yes"),
        ("nats", -90.1, (40.0, 19.0), "no"),
        ("minutes of all stages", -90.0, (40.0, 21.0), "no"),
    )
    def test_a_row_says_whether_both_bounds_were_reached(
        self, log_p, minutes, reached
    ):
        recipe = {
            "published": "-95",
            "measure": "log_marginal_likelihood",
            "nats": -90.0,
            "minutes": 60,
        }
        found = {
            "elbo": -93.25,
            "log_marginal_likelihood": log_p,
            "standard_error": 0.2,
            "num_importance_samples": 5000,
            "pareto_k_over_0.7": 0.5,
        }
        histories = [
            [
                {"epoch": n + 1, "step": 10 * (n + 1), "seconds": s, bound: v}
                for n, (v, s) in enumerate(
                    zip(values, (1, 2, end), strict=True)
                )
            ]
            for bound, values, end in (
                ("val_iwae", (-99.0, -97.0, -98.0), 60 * minutes[0]),
                ("val_iwae", (-95.0, -94.0, -93.0), 60 * minutes[1]),
            )
        ]
        looks = [
            {"hardware": "x", "commit": commit, "gigaflops": rate}
            for commit, rate in (("a", 300), ("a", 100), ("b", 200))
        ]
        row = reproduce.row("r", recipe, 7, found, histories, looks)
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        self.assertEqual(
            dict(zip(reproduce.COLUMNS, cells, strict=True)),
            {
                "recipe": "`r`",
                "seed": "7",
                "published": "-95",
                "sought": "log p(x) -90.0 in 60 min",
                "reached": reached,
                "ELBO": "-93.25",
                "log p(x)": f"{log_p:.2f} ± 0.20",
                "K": "5000",
                "k-hat > 0.7": "50%",
                "epoch": "2 of 3, 3 of 3",
                "steps": "60",
                "minutes": f"{sum(minutes):.1f}",
                "GFLOP/s": "300, 100, 200",
                "hardware": "x",
                "commit": "a, b",
            },
        )

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
