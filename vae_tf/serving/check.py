"""Checks an exported bundle in the way TensorFlow Serving runs it: a session
restored from the files alone.

python check.py BUNDLE CASES.npz

Imports nothing of the package, on purpose: `tf.saved_model.load` in the process
that exported would find weights and classes that a server does not have."""

import sys

import numpy as np
import tensorflow as tf

# Absolute and relative: batches of other sizes are summed in another order.
TOLERANCE = 1e-5


def check(bundle: str, cases: dict[str, np.ndarray]) -> None:
    """Runs each case through its signature.

    Args:
      bundle: directory of a SavedModel.
      cases: arrays named `<signature>/<rows>/input/<name>` and
        `<signature>/<rows>/output/<name>`.

    Raises:
      AssertionError: a signature gives other outputs than its case, or other
        numbers.
      tf.errors.OpError: the bundle cannot be loaded or run.
    """
    names = sorted({name.rsplit("/", 2)[0] for name in cases})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], bundle
        ).signature_def
        served = {key for key in signatures if not key.startswith("__")}
        wanted = {case.split("/")[0] for case in names}
        if served != wanted:
            raise AssertionError(
                f"expected signatures {sorted(wanted)}, received "
                f"{sorted(served)}."
            )
        for case in names:
            signature = signatures[case.split("/")[0]]
            given = {
                key: cases[f"{case}/input/{key}"] for key in signature.inputs
            }
            got = session.run(
                {key: info.name for key, info in signature.outputs.items()},
                {
                    signature.inputs[key].name: value
                    for key, value in given.items()
                },
            )
            expected = {
                name.rsplit("/", 1)[1]
                for name in cases
                if name.startswith(f"{case}/output/")
            }
            if set(got) != expected:
                raise AssertionError(
                    f"{case}: expected outputs {sorted(expected)}, received "
                    f"{sorted(got)}."
                )
            for key, value in got.items():
                _compare(case, key, value, cases[f"{case}/output/{key}"])


def _compare(case: str, key: str, value: np.ndarray, expected: np.ndarray):
    close = np.isclose(value, expected, TOLERANCE, TOLERANCE, equal_nan=True)
    # A bit or a level drawn at the edge of its probability may fall on the
    # other side.
    is_levels = np.allclose(expected * 255, np.round(expected * 255), 0, 1e-4)
    allowed = 1 + expected.size // 1000 if is_levels else 0
    if value.shape != expected.shape or np.sum(~close) > allowed:
        raise AssertionError(
            f"{case}: {key}: expected {expected}, received {value}."
        )


if __name__ == "__main__":
    with np.load(sys.argv[2]) as file:
        check(sys.argv[1], dict(file))
