"""Measures a trained run: ELBO and importance-weighted log p(x), in nats per
image, with error bars.

python evaluate.py
"""

import dataclasses

from vae_tf import command_line
from vae_tf.config import MAX_SEED, SPLITS, Settings, setting


@dataclasses.dataclass(frozen=True)
class Evaluation(Settings):
    run_dir: str = setting("runs/latest", "the run to measure")
    split: str = setting("test", "images to measure on", choices=SPLITS)
    num_importance_samples: int = setting(
        1000, "K, draws of z for each image", minimum=1
    )
    num_examples: int | None = setting(
        None, "the first so many images (unset: all)", minimum=1
    )
    seed: int = setting(0, "of the draws", minimum=0, maximum=MAX_SEED)
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: the run's)"
    )


def main(given):
    settings = Evaluation(**given)
    import vae_tf  # After the flags: `--help` needs no TensorFlow.

    result = vae_tf.evaluate_run(**dataclasses.asdict(settings))
    print(
        f"{result['dataset']} {result['split']}, {result['num_examples']} "
        f"images, in {result['units']}: "
        f"ELBO {result['elbo']:.2f}, log p(x) "
        f"{result['log_marginal_likelihood']:.2f} "
        f"+- {result['standard_error']:.2f} "
        f"(K={result['num_importance_samples']}, "
        f"Monte Carlo error {result['monte_carlo_standard_error']:.3f}, "
        f"median effective sample size {result['effective_sample_size']:.0f})"
    )


if __name__ == "__main__":
    command_line.run(Evaluation, main)
