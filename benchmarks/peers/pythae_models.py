"""A contestant of `benchmarks.peers`: a model of Pythae 0.1.2, trained as its
users train it, and what `benchmarks.peers.scoring` reads of it.

It imports nothing of this package and runs in an environment of its own (`pip
install pythae==0.1.2 torch numpy`)."""

import argparse
import contextlib
import io
import tempfile
import time

import numpy as np
import torch
from pythae import models, trainers
from pythae.pipelines import TrainingPipeline

from benchmarks.peers.scoring import scored

FAMILIES = {
    "mean_field": (models.VAE, models.VAEConfig, {}),
    "vamp": (models.VAMP, models.VAMPConfig, {"number_components": 500}),
    "iaf": (models.VAE_IAF, models.VAE_IAF_Config, {}),
    "iwae": (models.IWAE, models.IWAEConfig, {"number_samples": 5}),
}


@torch.no_grad()
def draws(model, images, count):
    """z `[K, N, D]` from q(z|x), and log q `[K, N]`."""
    found = model.encoder(images)
    loc, scale = found.embedding, (0.5 * found.log_covariance).exp()
    z = loc + scale * torch.randn(count, *loc.shape)
    normal = torch.distributions.Normal(loc, scale)
    log_q = normal.log_prob(z).sum(-1)
    if hasattr(model, "iaf_flow"):
        flat = model.iaf_flow.inverse(z.flatten(0, 1))
        z = flat.out.view(z.shape)
        log_q = log_q - flat.log_abs_det_jac.view(log_q.shape)
    return z, log_q


@torch.no_grad()
def prior(model):
    """Of a VampPrior: loc and scale of its components."""
    if not hasattr(model, "pseudo_inputs"):
        return {}
    images = model.pseudo_inputs(model.idle_input)
    found = model.encoder(images)
    scale = (0.5 * found.log_covariance).exp()
    return {"prior_loc": found.embedding, "prior_scale": scale}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--images", help="npz of bits")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--latent", type=int)
    scored(parser)
    settings = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(settings.seed)
    with np.load(settings.images) as file:
        train, test = (
            torch.tensor(file[split].reshape(-1, 784), dtype=torch.float32)
            for split in ("train", "test")
        )
    family, config, further = FAMILIES[settings.family]
    model = family(
        config(
            input_dim=(784,),
            latent_dim=settings.latent,
            reconstruction_loss="bce",
            **further,
        )
    )
    with tempfile.TemporaryDirectory() as directory:
        pipeline = TrainingPipeline(
            model=model,
            training_config=trainers.BaseTrainerConfig(
                output_dir=directory,
                num_epochs=settings.epochs,
                learning_rate=settings.rate,
                per_device_train_batch_size=settings.batch,
                keep_best_on_train=True,
                seed=settings.seed,
                no_cuda=True,
            ),
        )
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            pipeline(train_data=train)
        seconds = time.perf_counter() - start
    model.eval()
    z, log_q = draws(model, test[: settings.num_examples], settings.num_samples)
    linear = [layer[0] for layer in model.decoder.layers]
    arrays = {"z": z, "log_q": log_q, **prior(model)}
    for number, layer in enumerate(linear):
        arrays[f"kernel_{number}"] = layer.weight.detach().T
        arrays[f"bias_{number}"] = layer.bias.detach()
    np.savez(settings.out, **{k: v.numpy() for k, v in arrays.items()})
    print("SECONDS", seconds)


if __name__ == "__main__":
    main()
