"""The same VAE in PyTorch, as its users would write it: the baseline of
`benchmarks.speed.training` and `benchmarks.speed.time_to_quality`, which start
it in a process.

It imports nothing of this package and may run in an environment of its own
(`pip install torch numpy`)."""

import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.scoring import scored
from benchmarks.shared.stopwatch import model_parser, serve

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


class MADE(nn.Module):
    """A step of an inverse autoregressive flow, with one hidden layer."""

    def __init__(self, latent, context, reverse, units=320):
        super().__init__()
        order = torch.arange(latent)
        order = order.flip(0) if reverse else order
        hidden = torch.arange(units) % (latent - 1)
        before = (order[:, None] <= hidden[None]).float()
        after = (hidden[:, None] < order[None]).float().repeat(1, 2)
        self.register_buffer("before", before.T)
        self.register_buffer("after", after.T)
        self.first = nn.Linear(latent, units)
        self.context = nn.Linear(context, units, bias=False)
        self.last = nn.Linear(units, 2 * latent)

    def forward(self, z, features):
        hidden = functional.linear(
            z, self.first.weight * self.before, self.first.bias
        )
        hidden = functional.elu(hidden + self.context(features))
        out = functional.linear(
            hidden, self.last.weight * self.after, self.last.bias
        )
        shift, raw_gate = out.chunk(2, -1)
        gate = torch.sigmoid(raw_gate + 2)
        return gate * z + (1 - gate) * shift, gate.log().sum(-1)


class VAE(nn.Module):
    def __init__(self, network, hidden, latent, family="mean_field", samples=1):
        super().__init__()
        self.samples = samples
        if network == "conv":
            self.body, width = ConvEncoder(), 49 * 64
            self.decoder = ConvDecoder(latent)
        else:
            self.body, width = mlp(784, *hidden), hidden[-1]
            self.decoder = nn.Sequential(
                mlp(latent, *hidden[::-1]), nn.Linear(hidden[0], 784)
            )
        self.head = nn.Linear(width, 2 * latent)
        self.flow = nn.ModuleList(
            MADE(latent, width, step == 1)
            for step in range(2 if family == "iaf" else 0)
        )
        self.pseudo_inputs = (
            nn.Parameter(torch.randn(500, 784)) if family == "vamp" else None
        )

    def posterior(self, x):
        features = self.body(x)
        loc, raw_scale = self.head(features).chunk(2, -1)
        return features, loc, functional.softplus(raw_scale)

    def reconstruction(self, x, z):
        return -functional.binary_cross_entropy_with_logits(
            self.decoder(z), x, reduction="none"
        ).sum(-1)

    def log_weights(self, x, samples):
        """log p(x, z) - log q(z|x) `[K, B]` of draws of z."""
        features, loc, scale = self.posterior(x)
        noise = torch.randn(samples, *loc.shape)
        z = loc + scale * noise
        log_q = -(0.5 * noise**2 + scale.log()).sum(-1)
        for made in self.flow:
            z, log_det = made(z, features)
            log_q = log_q - log_det
        if self.pseudo_inputs is None:
            log_prior = -0.5 * (z**2).sum(-1)
        else:
            _, locs, scales = self.posterior(self.pseudo_inputs.sigmoid())
            seen = (z[..., None, :] - locs) / scales
            each = -(0.5 * seen**2 + scales.log()).sum(-1)
            log_prior = each.logsumexp(-1) - math.log(len(locs))
        x = x.expand(samples, *x.shape)
        log_likelihood = self.reconstruction(x.flatten(0, 1), z.flatten(0, 1))
        return log_likelihood.view(samples, -1) + log_prior - log_q

    def bound(self, x):
        """The ELBO, its KL divergence exact where it can be; for K > 1 the
        importance-weighted bound.
        """
        if self.samples > 1 or self.flow or self.pseudo_inputs is not None:
            log_w = self.log_weights(x, self.samples)
            return (log_w.logsumexp(0) - math.log(self.samples)).mean()
        _, loc, scale = self.posterior(x)
        z = loc + scale * torch.randn_like(scale)
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)
        return (self.reconstruction(x, z) - kl).mean()

    @torch.no_grad()
    def log_p(self, x, num_samples):
        """Importance-weighted estimate of the mean of log p(x), in nats."""
        total = 0.0
        for image in x.split(16):
            log_w = self.log_weights(image, num_samples)
            bound = log_w.logsumexp(0) - math.log(num_samples)
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


def training(vae, batches, compiled=False):
    """A function that takes one step."""
    optimizer = torch.optim.RMSprop(vae.parameters(), lr=1e-3, centered=True)
    bound = torch.compile(vae.bound) if compiled else vae.bound

    def step():
        loss = -bound(next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def race(settings, images):
    vae = VAE(
        settings.network,
        settings.hidden,
        settings.latent,
        settings.family,
        settings.samples,
    )
    if settings.network == "conv":
        vae = vae.to(memory_format=torch.channels_last)
    feed = {"memory": batches_in_memory, "loader": batches_of_loader}
    batches = feed[settings.feed](images, settings.batch)
    step = training(vae, batches, settings.compile)
    steps = math.ceil(len(images) / settings.batch)

    def play():
        for _ in range(steps):
            step()
        return steps

    serve(play)


def fit(settings, images, test):
    """Trains for some epochs; writes what `benchmarks.peers.scoring` reads."""
    vae = VAE("mlp", settings.hidden, settings.latent)
    step = training(vae, batches_in_memory(images, settings.batch))
    start = time.perf_counter()
    for _ in range(settings.epochs * math.ceil(len(images) / settings.batch)):
        step()
    print("SECONDS", time.perf_counter() - start)
    with torch.no_grad():
        _, loc, scale = vae.posterior(test[: settings.num_examples])
        normal = torch.distributions.Normal(loc, scale)
        z = normal.sample((settings.num_samples,))
        arrays = {"z": z, "log_q": normal.log_prob(z).sum(-1)}
        layers = [m for m in vae.decoder.modules() if isinstance(m, nn.Linear)]
        for number, layer in enumerate(layers):
            arrays[f"kernel_{number}"] = layer.weight.T
            arrays[f"bias_{number}"] = layer.bias
        np.savez(settings.out, **{k: v.numpy() for k, v in arrays.items()})


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
    parser = model_parser(__doc__)
    parser.add_argument("--steps", type=int, help="from one look to the next")
    parser.add_argument("--feed", default="memory")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--reach", type=float, help="log p(x) to train to")
    scored(parser)
    settings = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(settings.seed)
    with np.load(settings.images) as file:
        train, test = (
            torch.tensor(file[split].reshape(-1, 784), dtype=torch.float32)
            for split in ("train", "test")
        )
    if settings.reach is not None:
        reach(settings, train, test)
    elif settings.epochs is not None:
        fit(settings, train, test)
    else:
        race(settings, train)


if __name__ == "__main__":
    main()
