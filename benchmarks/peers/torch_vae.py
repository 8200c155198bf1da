"""The same VAE in PyTorch, as its users would write it: the baseline of
`benchmarks.speed.training` and `benchmarks.speed.time_to_quality`, which start
it in a process.

It imports nothing of this package and may run in an environment of its own
(`pip install torch numpy`)."""

import argparse
import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.shared.stopwatch import serve

THREADS = 2


def mlp(*widths):
    layers = []
    for width, following in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        hidden = self.first(functional.relu(x))
        return x + self.second(functional.relu(hidden))


class ConvEncoder(nn.Module):
    """Of 28x28 images: [B, 784] -> [B, 49 * 64]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1),
            Residual(32),
            nn.Conv2d(32, 64, 3, 2, 1),
            Residual(64),
        )

    def forward(self, x):
        x = (x - 0.5).view(-1, 1, 28, 28)
        x = x.contiguous(memory_format=torch.channels_last)
        return functional.relu(self.layers(x)).flatten(1)


class ConvDecoder(nn.Module):
    """[B, latent] -> [B, 784]."""

    def __init__(self, latent):
        super().__init__()
        self.project = nn.Linear(latent, 49 * 64)
        self.blocks = nn.ModuleList([Residual(64), Residual(32)])
        self.ups = nn.ModuleList(
            [
                nn.Conv2d(64, 32, 3, padding=1),
                nn.Conv2d(32, 16, 3, padding=1),
            ]
        )
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, z):
        x = self.project(z).view(-1, 64, 7, 7)
        x = x.contiguous(memory_format=torch.channels_last)
        for block, up in zip(self.blocks, self.ups, strict=True):
            x = functional.relu(block(x))
            x = up(functional.interpolate(x, scale_factor=2))
        return self.head(functional.relu(x)).flatten(1)


class VAE(nn.Module):
    def __init__(self, network, hidden, latent):
        super().__init__()
        if network == "conv":
            self.encoder = nn.Sequential(
                ConvEncoder(), nn.Linear(49 * 64, 2 * latent)
            )
            self.decoder = ConvDecoder(latent)
        else:
            self.encoder = nn.Sequential(
                mlp(784, *hidden), nn.Linear(hidden[-1], 2 * latent)
            )
            self.decoder = nn.Sequential(
                mlp(latent, *hidden[::-1]), nn.Linear(hidden[0], 784)
            )

    def posterior(self, x):
        loc, raw_scale = self.encoder(x).chunk(2, -1)
        return loc, functional.softplus(raw_scale)

    def reconstruction(self, x, z):
        return -functional.binary_cross_entropy_with_logits(
            self.decoder(z), x, reduction="none"
        ).sum(-1)

    def elbo(self, x):
        loc, scale = self.posterior(x)
        z = loc + scale * torch.randn_like(scale)
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)
        return (self.reconstruction(x, z) - kl).mean()

    @torch.no_grad()
    def log_p(self, x, num_samples):
        """Importance-weighted estimate of the mean of log p(x), in nats."""
        total = 0.0
        for image in x.split(16):
            loc, scale = self.posterior(image)
            noise = torch.randn(num_samples, *loc.shape)
            z = loc + scale * noise
            x_k = image.expand(num_samples, *image.shape)
            weights = self.reconstruction(
                x_k.flatten(0, 1), z.flatten(0, 1)
            ).view(num_samples, -1) + (
                0.5 * (noise**2 - z**2) + scale.log()
            ).sum(-1)
            bound = weights.logsumexp(0) - math.log(num_samples)
            total += bound.sum().item()
        return total / len(x)


def batches_in_memory(images, size):
    while True:
        for rows in torch.randperm(len(images)).split(size):
            yield images[rows]


def batches_of_loader(images, size):
    data = torch.utils.data.TensorDataset(images)
    loader = torch.utils.data.DataLoader(data, size, shuffle=True)
    while True:
        for (batch,) in loader:
            yield batch


def training(vae, batches):
    """A function that takes one step."""
    optimizer = torch.optim.RMSprop(vae.parameters(), lr=1e-3, centered=True)

    def step():
        loss = -vae.elbo(next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def race(settings, images):
    vae = VAE(settings.network, settings.hidden, settings.latent)
    if settings.network == "conv":
        vae = vae.to(memory_format=torch.channels_last)
    feed = {"memory": batches_in_memory, "loader": batches_of_loader}
    step = training(vae, feed[settings.feed](images, settings.batch))

    steps = math.ceil(len(images) / settings.batch)

    def play():
        for _ in range(steps):
            step()
        return steps

    serve(play)


def reach(settings, images, test):
    """Prints steps, seconds of training and log p(x), until it is reached."""
    vae = VAE("mlp", settings.hidden, settings.latent)
    step = training(vae, batches_in_memory(images, settings.batch))
    seconds, steps = 0.0, 0
    while steps < 40 * settings.steps:
        start = time.perf_counter()
        for _ in range(settings.steps):
            step()
        seconds += time.perf_counter() - start
        steps += settings.steps
        log_p = vae.log_p(test, settings.num_samples)
        print(steps, seconds, log_p, flush=True)
        if log_p >= settings.reach:
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="npz of bits")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--latent", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, help="from one look to the next")
    parser.add_argument("--feed", default="memory")
    parser.add_argument("--reach", type=float, help="log p(x) to train to")
    parser.add_argument("--num_samples", type=int, default=128, help="K")
    settings = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with np.load(settings.images) as file:
        train, test = (
            torch.tensor(file[split].reshape(-1, 784), dtype=torch.float32)
            for split in ("train", "test")
        )
    if settings.reach is None:
        race(settings, train)
    else:
        reach(settings, train, test)


if __name__ == "__main__":
    main()
