"""Measures a trained run: ELBO and log p(x), importance-weighted or, in at most
two latent dimensions, exact, in nats per image, with error bars. --compare
ranks runs that were measured.

python evaluate.py, or vae-evaluate where the package is installed
"""

import dataclasses
from typing import Any

from vae_tf import command_line
from vae_tf.config import MAX_SEED, SPLITS
from vae_tf.settings import Settings, UserError, setting

REMEDY = (
    "--method quadrature where latent_dim <= 2, else annealed, or more draws"
)


@dataclasses.dataclass(frozen=True)
class Evaluation(Settings):
    run_dir: str = setting("runs/latest", "the run to measure", path=True)
    split: str = setting("test", "images to measure on", choices=SPLITS)
    num_importance_samples: int = setting(
        1000, "K, draws of z for each image", minimum=1
    )
    tolerance: float | None = setting(
        None,
        "of log p(x), nats: K then doubles, image by image, from "
        "num_importance_samples, until the Monte Carlo standard error is below "
        "it or K is 128000",
        above=0.0,
    )
    num_examples: int | None = setting(
        None, "the first so many images (unset: all)", minimum=1
    )
    seed: int = setting(0, "of the draws", minimum=0, maximum=MAX_SEED)
    data_dir: str | None = setting(
        None,
        "TFDS data directory (unset: the run's)",
        path=True,
        remote=True,
    )
    method: str = setting(
        "importance",
        "how log p(x) is found; quadrature: latent_dim <= 2; both others are "
        "slower than importance",
        choices=("importance", "annealed", "quadrature"),
    )
    num_annealing_steps: int = setting(
        100, "T, of annealed importance sampling", minimum=1
    )
    num_chains: int = setting(
        16, "of annealed importance sampling, for each image", minimum=1
    )
    annealing_start: str | None = setting(
        None,
        "where its chains start (unset: prior for latent_dim <= 2 or without "
        "an encoder, else encoder)",
        choices=("encoder", "prior"),
    )
    bidirectional: bool = setting(
        False,
        "bounds of log p(x) from both sides, too, on 100 images that the model "
        "draws",
    )
    gaps: bool = setting(
        False,
        "what of log p(x) - ELBO is the encoder's and what its family's, too, "
        "on 1,000 images (the first num_examples, if set)",
    )
    compare: tuple[str, ...] | None = setting(
        None,
        "runs, measured on --split, to show side by side; nothing is measured",
        path=True,
    )


def evaluate(given: dict[str, Any]) -> None:
    settings = Evaluation(**given)
    if settings.compare is not None:
        _compare(settings.compare, settings.split, given)
        return
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    measured = dataclasses.asdict(settings)
    del measured["compare"]
    measured["inference_gaps"] = measured.pop("gaps")
    from vae_tf.runs.measurement import NotWritten

    try:
        result = vae_tf.evaluate_run(**measured)
    except NotWritten as error:
        _print(error.result)
        raise
    _print(result)


def _print(result: dict[str, Any]) -> None:
    print(headline(result), end="\n\n")
    show(result)


def headline(result: dict[str, Any]) -> str:
    """What was found, in a few lines, with what it is worth."""
    images = f"{result['num_examples']:,} images of {result['split']}"
    spread = result["standard_error"]
    lines = [
        f"ELBO     = {result['elbo']:.2f} nats per image",
        f"log p(x) = {result['log_marginal_likelihood']:.2f}"
        + (
            f", of {images}"
            if spread is None  # of one image
            else f" ± {spread:.2f}, the standard error over {images}"
        ),
    ]
    trained, asked = result["epochs_trained"], result["epochs_asked"]
    if trained and trained < asked:
        lines.append(
            f"           of a training that ended after {trained} of {asked} "
            "epochs"
        )
    if result["method"] == "quadrature":
        lines.append(
            f"           exact, to {result['quadrature_error']:.1g} nats of "
            "any image"
        )
        return "\n".join(lines)
    draws = f"K = {result['num_importance_samples']:,} draws"
    annealed = result["method"] == "annealed"
    # By annealing, k-hat stays that of the importance weights beside it.
    doubtful = None if annealed else result.get("pareto_k_over_0.7")
    error = result.get("monte_carlo_standard_error")
    if doubtful:
        lines.append(
            f"           too low: for {doubtful:.0%} of the images "
            f"{draws} are too few (k-hat > 0.7): {REMEDY}"
        )
    elif error is not None:
        what = "its chains" if annealed else draws
        lines.append(f"           ± {error:.3f} of {what}")
    return "\n".join(lines)


def show(result: dict[str, Any], indent: str = "") -> None:
    """Prints a line for each value, those of a dict below its name."""
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            show(value, indent + "  ")
            continue
        if isinstance(value, list):
            between = " to " if name.endswith("interval") else " "
            value = between.join(f"{number:.3f}" for number in value)
        if value is None:  # of another method
            continue
        number = isinstance(value, float)
        print(f"{indent + name:36}", f"{value:.3f}" if number else value)


def _compare(
    run_dirs: tuple[str, ...], split: str, given: dict[str, Any]
) -> None:
    unused = sorted(given.keys() - {"compare", "split"})
    if unused:
        raise UserError(
            f"--{unused[0]}: expected none beside --compare, which measures "
            f"nothing, received {given[unused[0]]!r}."
        )
    from vae_tf.runs.comparing import compare  # Needs no TensorFlow at all.

    print(compare(*run_dirs, split=split))


def main() -> None:
    command_line.run(Evaluation, evaluate, __doc__)


if __name__ == "__main__":
    main()
