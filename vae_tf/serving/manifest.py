"""What a bundle says of itself: `assets.extra/manifest.json`, and beside it a
checksum of that."""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from vae_tf.data.conversion import Conversion
from vae_tf.likelihoods import LIKELIHOODS
from vae_tf.posteriors import POSTERIORS
from vae_tf.priors import PRIORS
from vae_tf.runs.directory import versions
from vae_tf.serving.check import MANIFEST, SEAL, seal, sha256
from vae_tf.serving.signatures import Signature
from vae_tf.vae import VAE

# How level k of L (of 8-bit images, L = 256) becomes a pixel that a likelihood
# is a distribution over.
PREPROCESSING = {
    "binary": "1 with probability k / (L - 1), or where that is at least 1/2, "
    "else 0",
    "interval": "(k + u) / L with u uniform in [0, 1)",
    "levels": "k / (L - 1)",
}


def write(
    bundle: pathlib.Path,
    vae: VAE,
    functions: dict[str, Signature],
    traced: dict[str, Any],
    num_importance_samples: int,
    trained_on: dict[str, Any] | None,
) -> None:
    """Writes the manifest of a bundle that holds everything else.

    Args:
      bundle: its directory.
      vae: the model.
      functions: `signatures` of it.
      traced: signature name -> concrete function.
      num_importance_samples: K of `score`.
      trained_on: what is known of the run; None for a model of no run.
    """
    # A table of q(z|x) has no head.
    posterior = getattr(vae.encoder, "posterior", vae.encoder)
    likelihood = vae.decoder.likelihood
    content = {
        "signatures": {
            name: {
                "inputs": {spec.name: _described(spec) for spec in specs},
                "outputs": {
                    key: _described(output)
                    for key, output in traced[name].structured_outputs.items()
                },
            }
            for name, (_, specs) in functions.items()
        },
        "likelihood": _name(likelihood, LIKELIHOODS),
        "posterior": _name(posterior, POSTERIORS),
        "prior": _name(vae.prior, PRIORS),
        "latent_dim": vae.encoder.latent_dim,
        "image": {
            "shape": list(vae.decoder.image_shape),
            "range": [0, 1],
            "support": likelihood.support,
            "preprocessing": PREPROCESSING.get(likelihood.support),
            # What the signatures that take files do with them.
            "conversion": dataclasses.asdict(
                Conversion.of(likelihood.support, trained_on or {})
            ),
        },
        # Of `encode`: fixed draws of z, or 0 for a closed form.
        "posterior_moment_draws": getattr(posterior, "moment_draws", 0),
        # K of `score`.
        "num_importance_samples": num_importance_samples,
        "units": "nats per example",
        "trained_on": trained_on,
        "exported_with": versions(),
        "sha256": {
            path.relative_to(bundle).as_posix(): sha256(path)
            for path in sorted(bundle.rglob("*"))
            if path.is_file()
        },
    }
    (bundle / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
    (bundle / SEAL).write_text(seal(bundle))


def warn_of_another(bundle: pathlib.Path, before: pathlib.Path) -> None:
    """Warns where the version `before` a new bundle is a model of other images
    or another latent space, to whose clients a server would give this one.
    """
    try:
        then, now = (
            (known["image"]["shape"], known["latent_dim"])
            for known in (
                json.loads((place / MANIFEST).read_bytes())
                for place in (before, bundle)
            )
        )
    except (OSError, ValueError, KeyError, TypeError):
        return  # none of ours
    if then != now:
        warnings.warn(
            f"--export_dir: {before} is a model of images {then[0]} and "
            f"{then[1]} latents, and the new version one of {now[0]} and "
            f"{now[1]}; a server gives the highest version to the clients of "
            "both (another --export_dir keeps them apart).",
            stacklevel=4,
        )


def _described(tensor: tf.TensorSpec) -> dict[str, Any]:
    # The batch axis, of any size, is -1, as in TensorFlow Serving's metadata.
    shape = [-1 if size is None else size for size in tensor.shape]
    return {"dtype": tensor.dtype.name, "shape": shape}


def _name(part, family: Mapping[str, type]) -> str:
    """The name by which a part is chosen, or the class of a user's own."""
    names = {member: name for name, member in family.items()}
    return names.get(type(part), type(part).__name__)
