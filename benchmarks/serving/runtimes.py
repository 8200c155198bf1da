"""What runs where: a table of the largest difference from TensorFlow of each
signature in each runtime, or why it does not run.

python -m benchmarks.serving.runtimes

Installs each runtime into an environment of its own, from PyPI and npm, and
removes it afterwards: 3 GB at a time at most, for TensorFlow.js. Where a model
of several does not run, the cell names it, and why."""

import collections
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import tempfile

import numpy as np

from benchmarks.serving import elsewhere, environments
from vae_tf import command_line
from vae_tf.settings import Settings, UserError, setting

HERE = pathlib.Path(__file__).parent
SIGNATURES = ("encode", "decode", "reconstruct", "sample", "score")
IMAGE_SHAPE = (28, 28, 1)
LATENT_DIM = 3
ROWS = 5
LIKELIHOODS = (
    "bernoulli",
    "continuous_bernoulli",
    "normal",
    "discretized_logistic",
)
# Name -> likelihood, posterior, prior, network.
MODELS = {
    "mean-field": {
        f"{likelihood} {network}": (
            likelihood,
            "mean_field",
            "standard_normal",
            network,
        )
        for likelihood in LIKELIHOODS
        for network in ("mlp", "conv")
    },
    "other families": {
        "full_covariance": (
            "bernoulli",
            "full_covariance",
            "standard_normal",
            "mlp",
        ),
        "iaf": ("bernoulli", "iaf", "standard_normal", "mlp"),
        "mixture": ("bernoulli", "mean_field", "mixture", "mlp"),
        "vamp": ("bernoulli", "mean_field", "vamp", "mlp"),
    },
}


@dataclasses.dataclass(frozen=True)
class Runtimes(Settings):
    runtimes: tuple[str, ...] = setting(
        (
            *(f"tensorflow-2.{minor}" for minor in range(12, 22)),
            *("tflite", "onnx", "openvino", "tfjs"),
        ),
        "rows of the table",
    )


def build(likelihood, posterior, prior, network):
    """A VAE whose weights are large enough for its answers to differ."""
    import keras

    import vae_tf
    from vae_tf.priors import PRIORS

    keras.utils.set_random_seed(0)
    if prior != "standard_normal":
        prior = PRIORS[prior](LATENT_DIM, num_components=5)
    vae = vae_tf.VAE(
        vae_tf.Encoder(LATENT_DIM, posterior, network=network),
        vae_tf.Decoder(IMAGE_SHAPE, likelihood, network=network),
        prior=prior,
    )
    generator = np.random.default_rng(0)
    for variable in vae.trainable_variables:
        noise = 0.03 * generator.standard_normal(variable.shape)
        variable.assign_add(noise)
    return vae


def write(
    vae, directory: pathlib.Path, names: tuple[str, ...] = SIGNATURES
) -> tuple[pathlib.Path, pathlib.Path]:
    """A model's bundle, and what its signatures answer here, as `elsewhere`
    reads it.
    """
    import vae_tf
    from vae_tf.serving.signatures import signatures
    from vae_tf.serving.warmup import examples

    bundle = vae_tf.export(vae, directory, num_importance_samples=8)
    arrays = {}
    functions = signatures(vae, 8)
    for name in names:
        function, specs = functions[name]
        inputs = examples(specs, ROWS)
        for key, value in inputs.items():
            arrays[f"{name}/input/{key}"] = value
        for key, value in function(**inputs).items():
            arrays[f"{name}/output/{key}"] = value.numpy()
    cases = directory / "cases.npz"
    np.savez(cases, **arrays)
    return bundle, cases


def ask(
    python: pathlib.Path, runtime: str, bundle, cases, **environment
) -> dict[str, tuple[float | None, str]]:
    """Signature -> the largest difference or None, and why."""
    result = subprocess.run(
        [python, HERE / "elsewhere.py", runtime, bundle, cases],
        env=os.environ
        | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        | environment,
        capture_output=True,
        text=True,
    )
    answers: dict[str, tuple[float | None, str]] = {}
    for line in result.stdout.splitlines():
        if line.startswith("["):
            signature, found, why = json.loads(line)
            answers[signature] = found, why
    return {
        name: answers.get(name, (None, f"ended with {result.returncode}"))
        for name in SIGNATURES
    }


def cell(answers: dict[str, tuple[float | None, str]]) -> str:
    """Of a signature, the answers by model: the largest difference, and the
    models without one by their reason.
    """
    found = [value for value, _ in answers.values() if value is not None]
    parts = [f"{np.max(found):.0e}"] if found else []
    models = collections.defaultdict(list)
    for model, (value, why) in answers.items():
        if value is None:
            models[why].append(model)
    for why, names in models.items():
        everyone = len(names) == len(answers)
        parts.append(why if everyone else f"{', '.join(names)}: {why}")
    return "; ".join(parts)


def prepared(
    runtime: str, version: str, place: pathlib.Path
) -> tuple[pathlib.Path, dict[str, str]]:
    """A Python that has a runtime, and what to set in its environment."""
    if runtime == "tensorflow":
        python = environments.make(place, "numpy", "protobuf")
        # What its Python would need is not looked at: only its C library is.
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-deps"]
            + [f"tensorflow-cpu=={version}.*"],
            check=True,
        )
        return python, {}
    if runtime == "tfjs":
        python = environments.make(place, *environments.TFJS)
        modules = place / "npm"
        subprocess.run(
            ["npm", "install", "--silent", "--prefix", modules]
            + [environments.TFJS_NPM],
            check=True,
        )
        return python, {"NODE_PATH": str(modules / "node_modules")}
    return environments.make(
        place, *environments.CONVERTERS, beside_ours=True
    ), {}


def main(given):
    rows = [name.partition("-") for name in Runtimes(**given).runtimes]
    for runtime, _, version in rows:
        named = bool(version) == (runtime == "tensorflow")
        if runtime not in elsewhere.RUNTIMES or not named:
            raise UserError(
                "--runtimes: expected tensorflow-2.12 and the like, tflite, "
                f"onnx, openvino or tfjs, received {runtime + version!r}."
            )
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        bundles = {
            group: {
                # TensorFlow.js' converter cuts its arguments at spaces.
                name: write(
                    build(*families), root / f"{group}-{name}".replace(" ", "-")
                )
                for name, families in models.items()
            }
            for group, models in MODELS.items()
        }
        tables = collections.defaultdict(list)
        for runtime, _, version in rows:
            with tempfile.TemporaryDirectory() as place:
                python, extra = prepared(runtime, version, pathlib.Path(place))
                for group, models in bundles.items():
                    answers = {
                        name: ask(python, runtime, bundle, cases, **extra)
                        for name, (bundle, cases) in models.items()
                    }
                    cells = [
                        cell({m: one[name] for m, one in answers.items()})
                        for name in SIGNATURES
                    ]
                    label = f"{runtime} {version}".strip()
                    line = f"| {label} | {' | '.join(cells)} |"
                    print(group, line, flush=True)
                    tables[group].append(line)
    print(f"\nPython {platform.python_version()}; {environments.CONVERTERS}")
    print(f"{environments.TFJS}; {environments.TFJS_NPM}")
    for group, lines in tables.items():
        print(f"\n{group}\n\n| runtime | {' | '.join(SIGNATURES)} |")
        print("|---" * (1 + len(SIGNATURES)) + "|")
        print("\n".join(lines))


if __name__ == "__main__":
    command_line.run(Runtimes, main, __doc__)
