"""Variational autoencoders in both languages: encoder and inference network,
decoder and generative network.

The names below load on first use (PEP 562), so that a command line can answer
without TensorFlow."""

import importlib
import importlib.abc
import importlib.util
import os
import sys

__version__ = "0.2.0"

# name -> the module it lives in
_HOMES = {
    "Config": "config",
    "UserError": "settings",
    "Data": "data.pipeline",
    "load_data": "data.pipeline",
    "MLP": "networks",
    "GatedMLP": "networks",
    "ConvEncoder": "networks",
    "ConvDecoder": "networks",
    "MeanField": "posteriors",
    "FullCovariance": "posteriors",
    "IAF": "posteriors",
    "StandardNormal": "priors",
    "Mixture": "priors",
    "VampPrior": "priors",
    "Bernoulli": "likelihoods",
    "ContinuousBernoulli": "likelihoods",
    "Normal": "likelihoods",
    "DiscretizedLogistic": "likelihoods",
    "ELBO": "objectives",
    "IWAE": "objectives",
    "Encoder": "encoder",
    "Decoder": "decoder",
    "VAE": "vae",
    "log_marginal_likelihood": "evaluation.importance",
    "infer": "inference.local",
    "inference_gaps": "inference.gaps",
    "explain": "inference.explanation",
    "PosteriorTable": "inference.table",
    "LocalVAE": "inference.local_vae",
    "Health": "runs.health",
    "load": "runs.directory",
    "draw_explanation": "pictures.inferred",
    "traversals": "pictures.snapshots",
    "interpolations": "pictures.snapshots",
    "evaluate_run": "runs.measurement",
    "compare": "runs.comparing",
    "train": "runs.training",
    "export": "serving.export",
    "export_run": "serving.export",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'vae_tf' has no attribute {name!r}")
    if _HOMES[name] not in ("config", "settings"):
        _load_all()
    return getattr(importlib.import_module(f"vae_tf.{_HOMES[name]}"), name)


def __dir__():
    return [*globals(), *__all__]


def _load_all() -> None:
    """Every class of Keras' at once: it can load a saved model only after those
    that it holds were registered.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":  # Keras would look for it, and fail.
        settings = importlib.import_module("vae_tf.settings")
        raise settings.UserError(
            "KERAS_BACKEND: expected 'tensorflow' of Keras, received "
            f"{backend!r}."
        )
    for home in ("vae", "inference.local_vae"):  # which hold all others
        importlib.import_module(f"vae_tf.{home}")


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Loads all when Keras is imported, whoever imports it, so that `import
    vae_tf` is enough for `keras.saving.load_model` and costs nothing before.
    """

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                if not any(map(_is_half_imported, list(sys.modules))):
                    _load_all()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _is_half_imported(name: str) -> bool:
    """Whether a module of ours is what is importing Keras: it loads its own."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return name.startswith("vae_tf.") and getattr(spec, "_initializing", False)


if "keras" in sys.modules:
    _load_all()
else:
    sys.meta_path.insert(0, _AfterKeras())
