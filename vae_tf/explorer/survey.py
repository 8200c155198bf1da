"""What an endpoint says of held-out images, asked once when the page opens."""

import contextlib
from typing import NamedTuple

import numpy as np

from vae_tf.serving.client import Client
from vae_tf.serving.errors import ServingError

MAX_IMAGES = 2000
MAX_PIXELS = 4_000_000  # of all of them: what an endpoint is asked for at once
# Images and pixels whose ELBO, of many draws, tells what each dimension holds.
TAKEN_APART, PIXELS_TAKEN_APART = 200, 160_000
# Draws of the model: of its prior, and in the place of held-out images.
OWN_IMAGES, PIXELS_OF_ITS_OWN = 300, 1_000_000


class Survey(NamedTuple):
    """N images, their classes and where q(z|x) puts them."""

    images: np.ndarray  # [N, H, W, C] in [0, 1]
    labels: np.ndarray | None  # [N]
    mean: np.ndarray  # of q(z|x), [N, D]
    stddev: np.ndarray  # [N, D]
    sample: np.ndarray | None  # a draw of each q(z|x), [N, D]
    prior: np.ndarray  # z ~ p(z), [M, D]
    per_dimension: np.ndarray  # what each dimension tells, [D]
    per_dimension_name: str
    are_held_out: bool  # or draws of the model itself


def survey(
    client: Client,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Survey:
    """Asks where the images are, and what the dimensions of z are for.

    Args:
      client: of the endpoint.
      images: those held out `[N, H, W, C]`, of which it takes the first; None
        for draws of the model itself.
      labels: their classes `[N]`.

    Raises:
      ServingError: no answer.
    """
    known = client.signatures()
    size = client.sample([0]).mean.size
    own = max(1, min(OWN_IMAGES, PIXELS_OF_ITS_OWN // size))
    drawn = client.sample(range(own))
    are_held_out = images is not None and "encode" in known
    if images is None or not are_held_out:
        # Of a Normal, some pixels are drawn outside [0, 1].
        images, labels = np.clip(drawn.image, 0, 1), None
    count = max(1, min(MAX_IMAGES, MAX_PIXELS // size))
    images = images[:count]
    if "encode" in known:
        mean, stddev = client.encode(images)
    else:  # No encoder for images of clients: where these came from.
        mean = drawn.z[:count]
        stddev = np.zeros_like(mean)
    sample = None
    if "encode_sample" in known:
        sample = client.encode_sample(images, range(len(images)))
    _warm_up(client, known, images[:1], mean[:1])
    found = {}
    if "explain" in known:
        some = images[: max(1, min(TAKEN_APART, PIXELS_TAKEN_APART // size))]
        # A slow server has no page less for it.
        with contextlib.suppress(ServingError):
            found = client.predict("explain", image=some, seed=range(len(some)))
    kl = found.get("kl_per_dimension", np.full((1, 1), np.nan))
    kl = kl[np.isfinite(kl).all(1)]
    if len(kl):
        told = kl.mean(0)
        name = "KL of each dimension (nats)"
    else:
        told, name = mean.var(0), "variance of the posterior's mean"
    return Survey(
        images=images,
        labels=None if labels is None else labels[:count],
        mean=mean,
        stddev=stddev,
        sample=sample,
        prior=drawn.z,
        per_dimension=told,
        per_dimension_name=name,
        are_held_out=are_held_out,
    )


def _warm_up(client: Client, known, image: np.ndarray, z: np.ndarray) -> None:
    """Asks what the page will ask: a first answer takes many times as long."""
    inputs = {
        "image": image,
        "z": z,
        "seed": [0],
        "image_bytes": client.sample_png([0]) if "sample_png" in known else [],
    }
    for signature, names in (
        ("decode", ["z"]),
        ("decode_sample", ["z", "seed"]),
        ("reconstruct", ["image"]),
        ("encode_bytes", ["image_bytes", "seed"]),
    ):
        if signature in known:
            client.predict(signature, **{name: inputs[name] for name in names})
