"""The same VAE in JAX and optax, as a careful user would write it: whole passes
over the images in one compiled scan, which shuffles, gathers and draws inside.
A contestant of `benchmarks.speed.training`, `benchmarks.speed.families` and
`benchmarks.peers`.

It imports nothing of this package and may run in an environment of its own
(`pip install jax optax numpy`)."""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers.scoring import scored
from benchmarks.shared.stopwatch import model_parser, serve

FLOW_UNITS = 320
PSEUDO_INPUTS = 500


def dense(key, rows, columns):
    kernel = jax.nn.initializers.he_normal()(key, (rows, columns))
    return {"kernel": kernel, "bias": jnp.zeros(columns)}


def mlp(key, *widths):
    keys = jax.random.split(key, len(widths) - 1)
    return [
        dense(*each) for each in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def applied(layers, x, activate=jax.nn.relu):
    """All layers but the last are activated."""
    for number, layer in enumerate(layers):
        x = (activate(x) if number else x) @ layer["kernel"] + layer["bias"]
    return x


def masks(dim, reverse):
    """Of a MADE with one hidden layer: numbers of the inputs before each."""
    order = np.arange(dim)[::-1] if reverse else np.arange(dim)
    hidden = np.arange(FLOW_UNITS) % (dim - 1)
    before = order[:, None] <= hidden[None]
    after = hidden[:, None] < order[None]
    return before.astype(np.float32), np.tile(after, 2).astype(np.float32)


def initial(key, settings):
    """Parameters of q(z|x), p(x|z) and, of a VampPrior, its pseudo-inputs."""
    hidden, latent = settings.hidden, settings.latent
    keys = jax.random.split(key, 6)
    parameters = {
        "encoder": mlp(keys[0], 784, *hidden, 2 * latent),
        "decoder": mlp(keys[1], latent, *hidden[::-1], 784),
    }
    if settings.family == "vamp":
        shape = (PSEUDO_INPUTS, 784)
        parameters["pseudo_inputs"] = jax.random.normal(keys[2], shape)
    if settings.family == "iaf":
        parameters["flow"] = [
            {
                "made": mlp(keys[3 + step], latent, FLOW_UNITS, 2 * latent),
                "context": dense(keys[5], hidden[-1], FLOW_UNITS),
            }
            for step in range(2)
        ]
    return parameters


def posterior(encoder, x):
    *hidden, last = encoder
    features = jax.nn.relu(applied(hidden, x))
    loc, raw_scale = jnp.split(
        features @ last["kernel"] + last["bias"], 2, axis=-1
    )
    return features, loc, jax.nn.softplus(raw_scale)


def log_normal(z, loc=0.0, scale=1.0):
    terms = -0.5 * ((z - loc) / scale) ** 2 - jnp.log(scale)
    return terms.sum(-1) - z.shape[-1] * math.log(2 * math.pi) / 2


def log_weights(parameters, x, noise):
    """log p(x, z) - log q(z|x) `[K, B]` at the z of noise `[K, B, D]`."""
    features, loc, scale = posterior(parameters["encoder"], x)
    z = loc + scale * noise
    log_q = log_normal(noise) - jnp.log(scale).sum(-1)
    for number, step in enumerate(parameters.get("flow", ())):
        first, last = step["made"]
        before, after = masks(z.shape[-1], number % 2 == 1)
        context = features @ step["context"]["kernel"]
        hidden = z @ (first["kernel"] * before) + first["bias"] + context
        hidden = jax.nn.elu(hidden)
        out = hidden @ (last["kernel"] * after) + last["bias"]
        shift, raw_gate = jnp.split(out, 2, axis=-1)
        gate = jax.nn.sigmoid(raw_gate + 2.0)
        z = gate * z + (1 - gate) * shift
        log_q -= jnp.log(gate).sum(-1)
    if "pseudo_inputs" in parameters:
        images = jax.nn.sigmoid(parameters["pseudo_inputs"])
        _, locs, scales = posterior(parameters["encoder"], images)
        each = log_normal(z[..., None, :], locs, scales)
        log_prior = jax.nn.logsumexp(each, -1) - math.log(len(locs))
    else:
        log_prior = log_normal(z)
    logits = applied(parameters["decoder"], z)
    log_likelihood = (x * logits - jax.nn.softplus(logits)).sum(-1)
    return log_likelihood + log_prior - log_q


def loss(parameters, x, noise):
    """Minus the ELBO, or for K > 1 minus the importance-weighted bound."""
    log_w = log_weights(parameters, x, noise)
    bound = jax.nn.logsumexp(log_w, 0) - math.log(len(log_w))
    return -bound.mean()


def training(settings, images):
    """A compiled pass over all images, state -> state; a first state, in which
    the parameters come first; and the steps of a pass.
    """
    # PyTorch's own decay, as in the loop that this stands beside.
    optimizer = optax.rmsprop(1e-3, decay=0.99, eps=1e-8, centered=True)
    key = jax.random.key(settings.seed)
    parameters = initial(key, settings)
    state = parameters, optimizer.init(parameters), key
    steps, rest = divmod(len(images), settings.batch)
    table = jnp.asarray(images)

    def step(state, rows):
        parameters, slots, key = state
        key, now = jax.random.split(key)
        x = table[rows].astype(jnp.float32)
        shape = (settings.samples, len(rows), settings.latent)
        noise = jax.random.normal(now, shape)
        slopes = jax.grad(loss)(parameters, x, noise)
        updates, slots = optimizer.update(slopes, slots, parameters)
        return (optax.apply_updates(parameters, updates), slots, key), None

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state):
        parameters, slots, key = state
        key, now = jax.random.split(key)
        order = jax.random.permutation(now, len(images))
        whole = order[: len(images) - rest].reshape(steps, settings.batch)
        state, _ = jax.lax.scan(step, (parameters, slots, key), whole)
        if rest:
            state, _ = step(state, order[-rest:])
        return state

    return epoch, state, steps + (rest > 0)


def race(settings, images):
    epoch, state, steps = training(settings, images)

    def play():
        nonlocal state
        state = jax.block_until_ready(epoch(state))
        return steps

    serve(play)


def fit(settings, images, test):
    """Trains for some epochs; writes what `benchmarks.peers.scoring` reads."""
    start = time.perf_counter()
    epoch, state, _ = training(settings, images)
    for _ in range(settings.epochs):
        state = epoch(state)
    parameters, _, key = jax.block_until_ready(state)
    print("SECONDS", time.perf_counter() - start)
    x = jnp.asarray(test[: settings.num_examples], jnp.float32)
    _, loc, scale = posterior(parameters["encoder"], x)
    noise = jax.random.normal(key, (settings.num_samples, *loc.shape))
    z = loc + scale * noise
    arrays = {"z": z, "log_q": log_normal(z, loc, scale)}
    for number, layer in enumerate(parameters["decoder"]):
        arrays |= {f"{name}_{number}": v for name, v in layer.items()}
    np.savez(settings.out, **{k: np.asarray(v) for k, v in arrays.items()})


def main():
    parser = model_parser(__doc__)
    scored(parser)
    settings = parser.parse_args()
    with np.load(settings.images) as file:
        train, test = (
            file[split].reshape(-1, 784) for split in ("train", "test")
        )
    if settings.epochs is None:
        race(settings, train)
    else:
        fit(settings, train, test)


if __name__ == "__main__":
    main()
