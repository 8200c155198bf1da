"""Draws the figures of a finished run anew and writes its report.html.

vae-report, or python -m vae_tf.commands.report
"""

import dataclasses
from typing import Any

from vae_tf import command_line
from vae_tf.pictures.latent_points import SHOWS, SPACINGS
from vae_tf.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Report(Settings):
    run_dir: str = setting(
        "runs/latest", "the run to draw and write up", path=True
    )
    data_dir: str | None = setting(
        None,
        "TFDS data directory (unset: the run's)",
        path=True,
        remote=True,
    )
    prior_predictive: str = setting(
        "samples",
        "what prior_predictive.png shows of p(x|z)",
        choices=SHOWS,
    )
    spacing: str = setting(
        "equal",
        "of z in its grid: equal from -3 to 3, or equal in probability",
        choices=SPACINGS,
    )


def report(given: dict[str, Any]) -> None:
    settings = Report(**given)
    # After the flags: `--help` needs no TensorFlow.
    from vae_tf.runs.report import report_run

    print(report_run(**dataclasses.asdict(settings)))


def main() -> None:
    command_line.run(Report, report, __doc__)


if __name__ == "__main__":
    main()
