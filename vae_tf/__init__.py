"""Variational autoencoders in both languages: encoder and inference network,
decoder and generative network.

The names below load on first use (PEP 562), so that a command line can answer
without TensorFlow."""

import importlib

__version__ = "0.1.0"

# name -> the module it lives in
_HOMES = {
    "Config": "config",
    "UserError": "settings",
    "Data": "data.pipeline",
    "load_data": "data.pipeline",
    "MLP": "networks",
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
    "load": "runs.directory",
    "traversals": "pictures.snapshots",
    "interpolations": "pictures.snapshots",
    "evaluate_run": "runs.measurement",
    "train": "runs.training",
    "export": "serving.export",
    "export_run": "serving.export",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'vae_tf' has no attribute {name!r}")
    if _HOMES[name] not in ("config", "settings"):
        # All at once: Keras can load a saved model only after every class of it
        # was registered.
        for home in _HOMES.values():
            importlib.import_module(f"vae_tf.{home}")
    return getattr(importlib.import_module(f"vae_tf.{_HOMES[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
