"""log p(x) under any contestant's model, from arrays alone: NumPy, and none of
the contestants' libraries.

A contestant writes an `.npz` with its generative network, ReLU layers
`kernel_0` `[in, out]`, `bias_0`, ... up to the logits of the pixels; draws `z`
`[K, N, D]` from its q(z|x) of the first N test images, with `log_q` `[K, N]`;
and, where its prior is not N(0, I), `prior_loc` and `prior_scale` `[C, D]` of
an equal mixture of normals."""

import argparse
import math
import pathlib

import numpy as np

LOG_2_PI = math.log(2 * math.pi)


def scored(parser: argparse.ArgumentParser) -> None:
    """Adds what a contestant is asked that trains, and then writes."""
    parser.add_argument("--epochs", type=int, help="to train for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_examples", type=int, help="N")
    parser.add_argument("--num_samples", type=int, default=128, help="K")
    parser.add_argument("--out", help="npz for the scorer")


def log_p(path: str | pathlib.Path, images: np.ndarray) -> np.ndarray:
    """log of the mean over draws of p(x, z) / q(z|x), `[N]`, in nats, for
    images `[N, ...]` of bits (Burda et al. 2015, arXiv:1509.00519).
    """
    with np.load(path) as file:
        arrays = dict(file)
    z, log_q = arrays["z"], arrays["log_q"].astype(np.float64)
    bits = images.reshape(len(images), -1).astype(np.float32)
    layers = sum(name.startswith("kernel_") for name in arrays)
    found = []
    for number, x in enumerate(bits):
        h = z[:, number]
        for layer in range(layers):
            h = np.maximum(h, 0) if layer else h
            h = h @ arrays[f"kernel_{layer}"] + arrays[f"bias_{layer}"]
        log_w = np.sum(x * h - np.logaddexp(0, h), -1, dtype=np.float64)
        log_w += log_prior(z[:, number], arrays) - log_q[:, number]
        found.append(log_sum_exp(log_w) - math.log(len(log_w)))
    return np.array(found)


def log_prior(z: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    z = z.astype(np.float64)
    if "prior_loc" not in arrays:
        return -0.5 * np.sum(z**2 + LOG_2_PI, -1)
    loc, scale = (
        arrays[f"prior_{name}"].astype(np.float64) for name in ("loc", "scale")
    )
    seen = (z[:, None] - loc) / scale
    each = -0.5 * np.sum(seen**2 + LOG_2_PI + 2 * np.log(scale), -1)
    return log_sum_exp(each) - math.log(len(loc))


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    top = values.max(-1, keepdims=True)
    return np.log(np.exp(values - top).sum(-1)) + top[..., 0]
