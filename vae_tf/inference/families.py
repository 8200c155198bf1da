"""Families of q(z) with parameters of their own for each of N images, nothing
shared: what the tutorial means by mean-field inference.

Parameters are a dict of tensors `[N, ...]`. A step has the same shapes and is
measured in what it moves: locations in standard deviations, scales in shares of
themselves, so that one step size suits every image and every dimension."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from vae_tf import posteriors

Parameters = dict[str, Any]
Flow = Sequence[tuple[int, ...]]  # hidden widths of each step's network
OPEN_FLOW: Flow = ((64,),) * 2  # where no encoder gives one
WEIGHT = 0.1  # what a step of 1 adds to a weight of a flow


class MeanField:
    """N(z; loc, diag(scale^2)): `loc` and `scale`, `[N, D]` each."""

    one_pass_density = True

    @staticmethod
    def start(
        posterior: tfd.Distribution, flow: Flow = OPEN_FLOW
    ) -> Parameters:
        """Parameters with the moments of a distribution, batch `[N]`; where the
        family is a flow and that is none, of a flow of these widths.
        """
        return {"loc": posterior.mean(), "scale": posterior.stddev()}

    @staticmethod
    def moved(parameters: Parameters, step: Parameters) -> Parameters:
        """Parameters after a step."""
        scale = parameters["scale"]
        return {
            "loc": parameters["loc"] + scale * step["loc"],
            "scale": scale * tf.exp(step["scale"]),
        }

    @staticmethod
    def distribution(parameters: Parameters) -> tfd.Distribution:
        """q, batch `[N]`, event `[D]`."""
        return tfd.MultivariateNormalDiag(
            parameters["loc"], parameters["scale"]
        )


class FullCovariance:
    """N(z; loc, L L^T): `loc` `[N, D]` and `scale_tril` L `[N, D, D]`."""

    one_pass_density = True

    @staticmethod
    def start(posterior, flow=OPEN_FLOW):
        if isinstance(posterior, tfd.MultivariateNormalTriL):
            scale_tril = posterior.scale.to_dense()
        else:
            scale_tril = tf.linalg.diag(posterior.stddev())
        return {"loc": posterior.mean(), "scale_tril": scale_tril}

    @staticmethod
    def moved(parameters, step):
        loc, scale_tril = parameters["loc"], parameters["scale_tril"]
        below = tf.linalg.band_part(step["scale_tril"], -1, 0)
        diagonal = tf.exp(tf.linalg.diag_part(below))
        return {
            "loc": loc + tf.linalg.matvec(scale_tril, step["loc"]),
            "scale_tril": scale_tril @ tf.linalg.set_diag(below, diagonal),
        }

    @staticmethod
    def distribution(parameters):
        return tfd.MultivariateNormalTriL(
            parameters["loc"], parameters["scale_tril"]
        )


class IAF:
    """An inverse autoregressive flow (`posteriors.IAF`) with networks of its
    own for each image: `loc` and `scale` as in `MeanField`, and `flow`, for
    each step the kernels `[N, in, out]` and biases `[N, out]` of its layers.
    """

    one_pass_density = False

    @staticmethod
    def start(posterior, flow=OPEN_FLOW):
        if isinstance(posterior, posteriors.Flow):
            *steps, shift, scale = posterior.bijector.bijectors
            loc, scale = shift.shift, scale.scale
            networks = [step.layers for step in steps[::-1]]
        else:
            # Open gates shrink z; what comes out is that posterior.
            gate = tf.sigmoid(posteriors.OPEN) ** len(flow)
            loc, scale = posterior.mean() / gate, posterior.stddev() / gate
            networks = _open_flow(loc.shape[-1], flow)
        own = [
            [
                (_each(kernel, 3, loc.shape[0]), _each(bias, 2, loc.shape[0]))
                for kernel, bias in layers
            ]
            for layers in networks
        ]
        return {"loc": loc, "scale": scale, "flow": own}

    @staticmethod
    def moved(parameters, step):
        flow = []
        for number, (layers, steps) in enumerate(
            zip(parameters["flow"], step["flow"], strict=True)
        ):
            masks = posteriors.masks(
                parameters["loc"].shape[-1],
                tuple(bias.shape[-1] for _, bias in layers[:-1]),
                reverse=number % 2 == 1,
            )
            flow.append(
                [
                    (kernel + WEIGHT * mask * up, bias + WEIGHT * right)
                    for (kernel, bias), (up, right), mask in zip(
                        layers, steps, masks, strict=True
                    )
                ]
            )
        return MeanField.moved(parameters, step) | {"flow": flow}

    @staticmethod
    def distribution(parameters):
        loc, scale = parameters["loc"], parameters["scale"]
        base = tfd.MultivariateNormalDiag(
            tf.zeros_like(loc), tf.ones(loc.shape[-1])
        )
        steps = map(posteriors.AutoregressiveStep, parameters["flow"][::-1])
        return posteriors.Flow(
            base, tfb.Chain([*steps, tfb.Shift(loc), tfb.Scale(scale)])
        )


def _each(value: tf.Tensor, rank: int, images: int) -> tf.Tensor:
    """A copy for each image of what all of them share."""
    if value.shape.rank == rank:
        return value
    return tf.repeat(value[tf.newaxis], images, axis=0)


def flow_of(encoder) -> Flow:
    """The widths of an encoder's flow, `OPEN_FLOW` where it has none: so that
    what starts from it and what does not are of one shape (`Local.or_better`).
    """
    head = getattr(encoder, "posterior", None)
    if isinstance(head, posteriors.IAF):
        return (head.flow_units,) * len(head.steps)
    return OPEN_FLOW


def _open_flow(dim: int, flow: Flow) -> list[list[tuple[tf.Tensor, tf.Tensor]]]:
    """Kernels and biases of a flow that only multiplies z by its gates."""
    generator = np.random.default_rng(0)
    networks = []
    for number, widths in enumerate(flow):
        *hidden, outputs = posteriors.masks(dim, widths, number % 2 == 1)
        layers = [
            (
                tf.cast(
                    mask
                    * generator.normal(0, (2 / len(mask)) ** 0.5, mask.shape),
                    tf.float32,
                ),
                tf.zeros(mask.shape[1]),
            )
            for mask in hidden
        ]
        layers.append((tf.zeros(outputs.shape), tf.zeros(2 * dim)))
        networks.append(layers)
    return networks


FAMILIES: dict[str, Any] = {
    "mean_field": MeanField,
    "full_covariance": FullCovariance,
    "iaf": IAF,
}
