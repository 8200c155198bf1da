"""Published figures, reached again or passed: a frozen recipe is trained,
measured on the test split, and becomes a row of docs/results.md.

python -m benchmarks.reproduce static_mean_field

A recipe is a file of benchmarks/recipes with every setting of its run; its
epoch is chosen on validation images alone. One that was cut goes on where it
was, one that is finished is not run again. Minutes are of training, with all
that it validates and writes, and stand beside the rates at which the machine
multiplied float32 matrices before and after: a recipe has reached what was
sought if it did so in the time that is given it at 218 GFLOP/s. Of stages, runs
of which each starts where the one before it ended, minutes and steps are those
of all."""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys

from benchmarks.shared.commands import ROOT
from vae_tf import command_line
from vae_tf.data.files import written_atomically
from vae_tf.settings import Settings, UserError, setting

RECIPES = {
    path.stem: path
    for path in sorted((ROOT / "benchmarks" / "recipes").glob("*.json"))
}
RESULTS = ROOT / "docs" / "results.md"
COLUMNS = (
    "recipe",
    "seed",
    "published",
    "sought",
    "reached",
    "ELBO",
    "log p(x)",
    "K",
    "k-hat > 0.7",
    "epoch",
    "steps",
    "minutes",
    "GFLOP/s",
    "hardware",
    "commit",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
QUIET = 218  # GFLOP/s of the machine on which minutes were bounded
# Enough to see that a recipe runs, on images that are always there.
QUICK = {
    "dataset": "digits",
    "epochs": 2,
    "kl_warmup_epochs": 0,
    "latent_dim": 4,
    "hidden_units": (16,),
    "num_components": 8,
    "jit_compile": False,
}


@dataclasses.dataclass(frozen=True)
class Reproduce(Settings):
    recipe: str | None = setting(None, "its name", choices=tuple(RECIPES))
    seed: int | None = setting(None, "one alone of the recipe's (unset: all)")
    num_importance_samples: int | None = setting(
        None,
        "K, draws of z for each test image (unset: the recipe's, as a rule "
        "5,000)",
        minimum=1,
    )
    quick: bool = setting(
        False,
        "two epochs of scikit-learn's digits and K = 50, whose row is printed "
        "alone",
    )
    runs_dir: str = setting(
        "runs/reproduce", "a run for each recipe and seed", path=True
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )


def reproduced(recipe: dict, seed: int, settings: Reproduce) -> str:
    """The row of a recipe, which is trained and measured where it was not."""
    import vae_tf  # After the flags: `--help` needs no TensorFlow.
    from vae_tf.runs.directory import read_metrics
    from vae_tf.runs.reading import read_evaluation

    run_dir = pathlib.Path(settings.runs_dir) / f"{settings.recipe}-{seed}"
    samples = (
        settings.num_importance_samples or recipe["num_importance_samples"]
    )
    # What each stage has of its own.
    *earlier, last = recipe.get("stages", [{}])
    stages = {
        run_dir.with_name(f"{run_dir.name}-stage{number}"): stage
        for number, stage in enumerate(earlier, 1)
    } | {run_dir: last}
    if not (run_dir / "evaluation-test.json").exists():
        observe(run_dir)
        initial = None
        for place, stage in stages.items():
            config = recipe["config"] | stage
            vae_tf.train(
                vae_tf.Config(
                    **(config | (QUICK if settings.quick else {})),
                    seed=seed,
                    run_dir=str(place),
                    initial_run=initial,
                    data_dir=settings.data_dir,
                    resume=(place / "config.json").exists(),
                )
            )
            initial = str(place)
        observe(run_dir)
        vae_tf.evaluate_run(
            run_dir, "test", min(samples, 50) if settings.quick else samples
        )
    found = read_evaluation(run_dir, "test")
    history = read_metrics(run_dir)
    ends = [read_metrics(place)[-1] for place in stages]
    machine = json.loads(_machine(run_dir).read_text())
    bound = "val_iwae" if "val_iwae" in history[0] else "val_elbo"
    best = max(history, key=lambda epoch: epoch[bound])
    rates, doubtful = machine["gigaflops"], found["pareto_k_over_0.7"]
    minutes = sum(end["seconds"] for end in ends) / 60
    # Of a quiet machine, on which the bounds were set.
    quick = minutes * min(sum(rates) / len(rates) / QUIET, 1)
    in_nats = found[recipe["measure"]] >= recipe["nats"]
    word = {"elbo": "ELBO", "log_marginal_likelihood": "log p(x)"}
    cells = (
        f"`{settings.recipe}`",
        seed,
        recipe["published"],
        f"{word[recipe['measure']]} {recipe['nats']} in "
        f"{recipe['minutes']:g} min",
        "yes" if in_nats and quick <= recipe["minutes"] else "no",
        f"{found['elbo']:.2f}",
        f"{found['log_marginal_likelihood']:.2f} ± "
        f"{found['standard_error']:.2f}",
        found["num_importance_samples"],
        "" if doubtful is None else f"{doubtful:.0%}",
        f"{best['epoch']} of {len(history)}",
        f"{sum(end['step'] for end in ends):,}",
        f"{minutes:.{1 if minutes >= 1 else 2}f}",
        " to ".join(map(str, sorted({min(rates), max(rates)}))),
        machine["hardware"],
        machine["commit"],
    )
    return f"| {' | '.join(map(str, cells))} |"


def observe(run_dir: pathlib.Path) -> None:
    """Notes beside a run what makes it, and the rate of matrix products now."""
    from benchmarks.shared.floor import gigaflops

    path = _machine(run_dir)
    if path.exists():
        machine = json.loads(path.read_text())
    else:
        cores = len(os.sched_getaffinity(0))
        machine = {
            "hardware": f"{cores} cores, {_processor()}",
            "commit": _commit(),
            "gigaflops": [],
        }
    machine["gigaflops"].append(round(gigaflops()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(machine, indent=2) + "\n")


def _machine(run_dir: pathlib.Path) -> pathlib.Path:
    return run_dir.with_name(f"{run_dir.name}.machine.json")


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line for line in lines if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.machine()


def _commit() -> str:
    """Of the code, with a + where files differ from it, but for the page of
    the rows.
    """

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()

    page = f":!{RESULTS.relative_to(ROOT)}"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", page)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def with_row(text: str, row: str) -> str:
    """A page with a row of its table, in place of the one of the same recipe
    and seed.
    """
    before, head, after = text.partition(HEAD)
    if not head:
        raise UserError(
            f"{RESULTS}: expected a table with the columns "
            f"{', '.join(COLUMNS)}, received none."
        )
    end = next(
        (n for n, line in enumerate(after.splitlines()) if line[:1] != "|"),
        len(after.splitlines()),
    )
    lines = after.splitlines(keepends=True)

    def place(line):
        recipe, seed = (cell.strip(" `") for cell in line.split("|")[1:3])
        return [*RECIPES].index(recipe), int(seed)

    rows = {place(line): line for line in [*lines[:end], row + "\n"]}
    table = "".join(rows[key] for key in sorted(rows))
    return before + head + table + "".join(lines[end:])


def main(given):
    settings = Reproduce(**given)
    if settings.recipe is None:
        raise UserError(
            f"expected a recipe, one of {', '.join(RECIPES)}, received none."
        )
    recipe = json.loads(RECIPES[settings.recipe].read_text())
    seeds = recipe["seeds"] if settings.seed is None else [settings.seed]
    print(HEAD, end="")
    for seed in seeds[:1] if settings.quick else seeds:
        row = reproduced(recipe, seed, settings)
        print(row, flush=True)
        if not settings.quick:
            page = with_row(RESULTS.read_text(), row)
            with written_atomically(RESULTS) as temporary:
                temporary.write_text(page)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--recipe={sys.argv[1]}"
    command_line.run(Reproduce, main, __doc__)
