"""Published figures, reached again or passed: a frozen recipe is trained,
measured on the test split, and becomes a row of docs/results.md.

python -m benchmarks.reproduce static_mean_field

A recipe is a file of benchmarks/recipes with every setting of its run; its
epoch is chosen on validation images alone. One that was cut goes on where it
was, one that is finished is not run again. Minutes are of training, from the
building of the model on, with all that it validates and writes, as they were
measured; the rates at which the machine multiplied float32 matrices before and
after stand beside them. Of stages, runs of which each starts where the best
epoch of the one before it was, minutes and steps are those of all."""

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

    name = f"{settings.recipe}{'-quick' if settings.quick else ''}-{seed}"
    run_dir = pathlib.Path(settings.runs_dir) / name
    samples = (
        settings.num_importance_samples or recipe["num_importance_samples"]
    )
    samples = min(samples, 50) if settings.quick else samples
    # What each stage has of its own.
    *earlier, last = recipe.get("stages", [{}])
    stages = {
        run_dir.with_name(f"{run_dir.name}-stage{number}"): stage
        for number, stage in enumerate(earlier, 1)
    } | {run_dir: last}
    stages = {
        place: recipe["config"] | stage | (QUICK if settings.quick else {})
        for place, stage in stages.items()
    }
    require_of_recipe(stages)
    measured = run_dir / "evaluation-test.json"
    if not measured.exists():
        observe(run_dir)
        initial = None
        for place, config in stages.items():
            vae_tf.train(
                vae_tf.Config(
                    **config,
                    seed=seed,
                    run_dir=str(place),
                    initial_run=initial,
                    data_dir=settings.data_dir,
                    resume=(place / "config.json").exists(),
                )
            )
            initial = str(place)
        observe(run_dir)
    require_of_recipe(stages)  # A training that diverges halves its step size.
    if (
        not measured.exists()
        or read_evaluation(run_dir, "test")["num_importance_samples"] != samples
    ):
        vae_tf.evaluate_run(run_dir, "test", samples)
    return row(
        settings.recipe,
        recipe,
        seed,
        read_evaluation(run_dir, "test"),
        [read_metrics(place) for place in stages],
        json.loads(_machine(run_dir).read_text()),
    )


def require_of_recipe(stages: dict[pathlib.Path, dict]) -> None:
    """Raises UserError where a run is there that has other settings than its
    stage.
    """
    for run_dir, config in stages.items():
        path = run_dir / "config.json"
        saved = json.loads(path.read_text()) if path.exists() else config
        for name, value in json.loads(json.dumps(config)).items():
            found = json.loads(json.dumps(saved.get(name)))
            if found != value:
                raise UserError(
                    f"--runs_dir: expected no run in {run_dir} but one of the "
                    f"recipe, whose {name} is {value!r}, received one with "
                    f"{found!r} (take it away, or name another place)."
                )


def row(
    name: str | None,
    recipe: dict,
    seed: int,
    found: dict,
    histories: list[list[dict[str, float]]],
    looks: list[dict],
) -> str:
    """The row of a recipe's run.

    Args:
      found: its `evaluation-test.json`.
      histories: the rows of metrics of each stage.
      looks: at the machine, of `observe`.
    """
    from vae_tf.runs.directory import best

    ends = [history[-1] for history in histories]
    minutes = sum(end["seconds"] for end in ends) / 60
    reached = (
        found[recipe["measure"]] >= recipe["nats"]
        and minutes <= recipe["minutes"]
    )
    doubtful = found["pareto_k_over_0.7"]
    word = {"elbo": "ELBO", "log_marginal_likelihood": "log p(x)"}

    def each(part):
        return ", ".join(dict.fromkeys(look[part] for look in looks))

    cells = (
        f"`{name}`",
        seed,
        recipe["published"],
        f"{word[recipe['measure']]} {recipe['nats']} in "
        f"{recipe['minutes']:g} min",
        "yes" if reached else "no",
        f"{found['elbo']:.2f}",
        f"{found['log_marginal_likelihood']:.2f} ± "
        f"{found['standard_error']:.2f}",
        found["num_importance_samples"],
        "" if doubtful is None else f"{doubtful:.0%}",
        ", ".join(f"{best(h)['epoch']} of {len(h)}" for h in histories),
        f"{sum(end['step'] for end in ends):,}",
        f"{minutes:.{1 if minutes >= 1 else 2}f}",
        ", ".join(str(look["gigaflops"]) for look in looks),
        each("hardware"),
        each("commit"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def observe(run_dir: pathlib.Path) -> None:
    """Notes beside a run what makes it now, and at what rate of products."""
    from benchmarks.shared.floor import gigaflops

    path = _machine(run_dir)
    looks = json.loads(path.read_text()) if path.exists() else []
    looks.append(
        {
            "hardware": f"{len(os.sched_getaffinity(0))} cores, {_processor()}",
            "commit": _commit(),
            "gigaflops": round(gigaflops()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(looks, indent=2) + "\n")


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
