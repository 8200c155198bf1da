"""Families of the approximate posterior q(z|x): heads from features to a
distribution over the latent.

A head returns a `tfd.TransformedDistribution` of standard-normal noise, z =
T(epsilon), which is what the reparameterisation trick differentiates (Kingma
and Welling 2013, arXiv:1312.6114, section 2.4)."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

MIN_SCALE = 1e-4  # keeps log q(z|x) and its gradient finite
UNIT_SOFTPLUS = 0.5413249  # where softplus is 1, the scale of the prior
OPEN = 2.0  # what gates start at, before the sigmoid
MOMENT_DRAWS = 64  # of the moments that have no closed form


def _small() -> keras.initializers.Initializer:
    """Small first weights: training starts from q(z|x) close to the prior,
    whatever the image. Made anew for each layer, because an initializer takes
    its seed when it is made: one of the module would not heed the run's.
    """
    return keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")


class Posterior(keras.layers.Layer):
    """Base of the families: parameters are a linear map of the features to
    `num_parameters` of them.
    """

    factorizes = False  # whether q(z|x) = prod_d q(z_d|x)
    # Whether log q(z|x) at any z is as fast as a draw, and a function of z and
    # of the tensors that the distribution was made of.
    one_pass_density = False
    # Of mean and standard deviation: fixed draws, or 0 for a closed form.
    moment_draws = 0

    def __init__(self, latent_dim, num_parameters, **kwargs):
        # Distributions are float32 whatever computes them.
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.latent_dim = latent_dim
        self.parameters = keras.layers.Dense(
            num_parameters, kernel_initializer=_small(), dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.parameters.build(input_shape)
        super().build(input_shape)

    def get_config(self):
        return super().get_config() | {"latent_dim": self.latent_dim}


def _positive(raw_scale: tf.Tensor) -> tf.Tensor:
    return MIN_SCALE + tf.nn.softplus(raw_scale + UNIT_SOFTPLUS)


@keras.saving.register_keras_serializable("vae_tf")
class MeanField(Posterior):
    """q(z|x) = N(z; loc(x), diag(scale(x)^2)): every latent dimension
    independent given x.

    "Mean field" is meant over dimensions here; over datapoints, the inference
    network is shared (amortized).

    Args:
      latent_dim: D.

    Call arguments:
      features: `[B, F]`.

    Returns:
      `tfd.MultivariateNormalDiag`, batch `[B]`, event `[D]`; each scale at
        least 1e-4.
    """

    factorizes = True
    one_pass_density = True

    def __init__(self, latent_dim, **kwargs):
        super().__init__(latent_dim, 2 * latent_dim, **kwargs)

    def call(self, features):
        loc, raw_scale = tf.split(self.parameters(features), 2, axis=-1)
        return _DiagonalNormal(loc, _positive(raw_scale))


class _DiagonalNormal(tfd.MultivariateNormalDiag):
    """Whose moments are not broadcast: ONNX has no BroadcastArgs."""

    def _mean(self):
        return self.loc

    def _stddev(self):  # abs as in TFP: without it, XLA rounds otherwise
        return tf.abs(self.scale.diag_part())


@keras.saving.register_keras_serializable("vae_tf")
class FullCovariance(Posterior):
    """q(z|x) = N(z; loc(x), L(x) L(x)^T), with L = diag(scale(x)) (I + N(x)/D)
    and N strictly lower triangular: in units of the scale, and so that the D
    terms of a row together weigh as much as one, or their noise drowns what
    the diagonal has learned.

    Args:
      latent_dim: D.
      relative: False for L = diag(scale(x)) + N(x), as before version 0.2.

    Call arguments:
      features: `[B, F]`.

    Returns:
      `tfd.MultivariateNormalTriL`, batch `[B]`, event `[D]`; the diagonal of L
        at least 1e-4.
    """

    one_pass_density = True

    def __init__(self, latent_dim, relative=True, **kwargs):
        below = latent_dim * (latent_dim - 1) // 2
        super().__init__(latent_dim, 2 * latent_dim + below, **kwargs)
        self.relative = relative

    def call(self, features):
        loc, raw_scale, below = tf.split(
            self.parameters(features),
            [self.latent_dim, self.latent_dim, -1],
            axis=-1,
        )
        scale = _positive(raw_scale)
        scale_tril = tf.linalg.diag(scale)
        if self.latent_dim > 1:
            strict = tfb.FillTriangular().forward(below)  # [B, D-1, D-1]
            # A row of zeros above and a column of them to the right.
            strict = tf.pad(strict, [[0, 0], [1, 0], [0, 1]])
            if self.relative:
                strict *= scale[..., tf.newaxis] / self.latent_dim
            scale_tril += strict
        return tfd.MultivariateNormalTriL(loc, scale_tril)

    def get_config(self):
        return super().get_config() | {"relative": self.relative}

    @classmethod
    def from_config(cls, config):
        # A file that says nothing of it was written before there was a choice.
        return cls(**{"relative": False} | config)


@keras.saving.register_keras_serializable("vae_tf")
class IAF(Posterior):
    """Inverse autoregressive flow: z_0 = loc(x) + scale(x) * epsilon, then
    z_t = gate_t * z_{t-1} + (1 - gate_t) * shift_t, where gate and shift of
    dimension d see the dimensions before d only, and the features of x.

    Kingma et al. 2016, arXiv:1606.04934, algorithm 1. A draw, with its
    log q, takes one pass; log q at any other z takes D passes, one after the
    other. The order of the dimensions is reversed from step to step.

    Args:
      latent_dim: D, at least 2.
      flow_depth: number of steps.
      flow_units: widths of the hidden layers of each step's network.
      context_to_outputs: whether gates and shifts see the features of x by a
        path of their own. Without it those of the first dimension, before
        which there is nothing, are the same for every x.

    Call arguments:
      features: `[B, F]`.

    Returns:
      A `tfd.TransformedDistribution`, batch `[B]`, event `[D]`, whose mean and
        standard deviation are averages over 64 fixed draws.

    Raises:
      ValueError: there is nothing before the one dimension that there is, or
        no step or hidden layer.
    """

    moment_draws = MOMENT_DRAWS

    def __init__(
        self,
        latent_dim,
        flow_depth=2,
        flow_units=(320,),
        context_to_outputs=True,
        **kwargs,
    ):
        super().__init__(latent_dim, 2 * latent_dim, **kwargs)
        if latent_dim < 2:
            raise ValueError(
                "latent_dim: expected at least 2 for posterior iaf, whose "
                f"dimensions depend on those before them, received {latent_dim}"
                "."
            )
        if flow_depth < 1 or not flow_units or min(flow_units) < 1:
            raise ValueError(
                "flow_depth, flow_units: expected a number >= 1 of steps and "
                f"of units in each hidden layer, received {flow_depth} and "
                f"{tuple(flow_units)}."
            )
        self.flow_depth = flow_depth
        self.flow_units = tuple(flow_units)
        self.context_to_outputs = context_to_outputs
        self.steps = [
            MADE(latent_dim, self.flow_units, step % 2 == 1, context_to_outputs)
            for step in range(flow_depth)
        ]

    def build(self, input_shape):
        super().build(input_shape)
        for made in self.steps:
            made.build((None, self.latent_dim), input_shape)

    def call(self, features):
        loc, raw_scale = tf.split(self.parameters(features), 2, axis=-1)
        base = tfd.MultivariateNormalDiag(
            tf.zeros_like(loc), tf.ones(self.latent_dim)
        )
        steps = [AutoregressiveStep(m.given(features)) for m in self.steps]
        first = [tfb.Shift(loc), tfb.Scale(_positive(raw_scale))]
        return Flow(base, tfb.Chain(steps[::-1] + first))

    def get_config(self):
        return super().get_config() | {
            "flow_depth": self.flow_depth,
            "flow_units": self.flow_units,
            "context_to_outputs": self.context_to_outputs,
        }

    @classmethod
    def from_config(cls, config):
        # A file that says nothing of it was written before there was a choice.
        return cls(**{"context_to_outputs": False} | config)


class Flow(tfd.TransformedDistribution):
    """A transformed distribution with moments: averages over fixed draws of the
    noise, in pairs of opposite sign, so that equal images have equal moments.
    """

    def _fixed_draws(self):
        dim = self.event_shape[-1]
        # NumPy promises that this stream never changes.
        half = np.random.RandomState(0).randn(MOMENT_DRAWS // 2, dim)
        noise = np.concatenate([half, -half]).astype(np.float32)
        ones = [1] * len(self.batch_shape)
        noise = tf.reshape(noise, [MOMENT_DRAWS, *ones, dim])
        # [64, 1, D] -> [64, B, D]
        return self.bijector.forward(noise + self.distribution.loc)

    def _mean(self):
        return tf.reduce_mean(self._fixed_draws(), axis=0)

    def _variance(self):
        return tf.math.reduce_variance(self._fixed_draws(), axis=0)


class AutoregressiveStep(tfb.Bijector):
    """y = gate * x + (1 - gate) * shift with gate = sigmoid(.) in (0, 1), both
    `autoregressive` functions of x: its Jacobian is triangular, with the gates
    on the diagonal.
    """

    def __init__(self, layers):
        parameters = dict(locals())
        self.layers = layers
        super().__init__(
            forward_min_event_ndims=1,
            dtype=tf.float32,
            parameters=parameters,
            name="autoregressive_step",
        )

    def _forward(self, x):
        shift, raw_gate = autoregressive(x, self.layers)
        gate = tf.sigmoid(raw_gate)
        return gate * x + (1 - gate) * shift

    def _forward_log_det_jacobian(self, x):
        _, raw_gate = autoregressive(x, self.layers)
        return tf.reduce_sum(tf.math.log_sigmoid(raw_gate), axis=-1)

    def _inverse(self, y):
        # The dimension that comes first is right after one pass, the second
        # after two, and so on.
        def solve(step, x):
            shift, raw_gate = autoregressive(x, self.layers)
            gate = tf.sigmoid(raw_gate)
            x = (y - (1 - gate) * shift) / gate
            return step + 1, x

        dim, outputs = y.shape[-1], self.layers[-1][1]
        shape = tf.broadcast_dynamic_shape(
            tf.shape(y), tf.shape(outputs[..., :dim])
        )
        _, x = tf.while_loop(
            lambda step, _: step < dim, solve, (0, tf.broadcast_to(y, shape))
        )
        return x

    def _inverse_log_det_jacobian(self, y):
        return -self._forward_log_det_jacobian(self._inverse(y))


class MADE(keras.layers.Layer):
    """Masked autoencoder: outputs for dimension d that depend on the inputs
    before d only, and on a context.

    Germain et al. 2015, arXiv:1502.03509.

    Args:
      dim: D.
      hidden_units: widths of the hidden layers.
      reverse: whether "before" counts from the last dimension down.
      context_to_outputs: whether the outputs see the context directly, too.

    Call arguments:
      x: `[..., B, D]`.
      context: `[B, F]`.

    Returns:
      Shift and raw gate, `[..., B, D]` each. Gates start at sigmoid(2) = 0.88,
        so that the flow starts close to the identity.
    """

    def __init__(
        self,
        dim,
        hidden_units=(320,),
        reverse=False,
        context_to_outputs=False,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.dim = dim
        self.hidden_units = tuple(hidden_units)
        self.reverse = reverse
        self.context_to_outputs = context_to_outputs

    def build(self, x_shape, context_shape):
        self.masks = masks(self.dim, self.hidden_units, self.reverse)
        self.kernels, self.biases = [], []
        for number, mask in enumerate(self.masks):
            last = number == len(self.hidden_units)
            first = _small() if last else "he_normal"
            self.kernels.append(
                self.add_weight(mask.shape, first, name=f"kernel_{number}")
            )
            self.biases.append(
                self.add_weight(mask.shape[1:], "zeros", name=f"bias_{number}")
            )
        settings = {"use_bias": False, "dtype": self.dtype_policy}
        self.context_map = keras.layers.Dense(self.hidden_units[0], **settings)
        self.context_map.build(context_shape)
        if self.context_to_outputs:
            self.output_map = keras.layers.Dense(
                2 * self.dim, kernel_initializer=_small(), **settings
            )
            self.output_map.build(context_shape)
        super().build(x_shape)

    def given(self, context) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Kernel `[in, out]` and bias `[B, out]` of each layer."""
        kernels = [
            kernel * mask
            for kernel, mask in zip(self.kernels, self.masks, strict=True)
        ]
        biases = [tf.convert_to_tensor(bias) for bias in self.biases]
        biases[0] += self.context_map(context)
        if self.context_to_outputs:
            biases[-1] += self.output_map(context)
        return list(zip(kernels, biases, strict=True))

    def call(self, x, context):
        return autoregressive(x, self.given(context))


def masks(
    dim: int, hidden_units: tuple[int, ...], reverse: bool
) -> list[np.ndarray]:
    """1 where a kernel of a MADE's layers may differ from 0, else 0: a hidden
    unit of degree m sees the inputs whose degree is at most m, and is seen by
    the outputs of higher degree.
    """
    degrees = np.arange(1, dim + 1)
    before = inputs = degrees[::-1] if reverse else degrees
    found = []
    for units in hidden_units:
        # Degrees 1 .. D - 1 in turn: of degree D there is nothing to feed.
        after = np.arange(units) % (dim - 1) + 1
        found.append(before[:, None] <= after[None])
        before = after
    found.append(np.tile(before[:, None] < inputs[None], 2))
    return [mask.astype(np.float32) for mask in found]


def autoregressive(x: tf.Tensor, layers: list) -> tuple[tf.Tensor, tf.Tensor]:
    """Shift and raw gate `[..., B, D]` of x `[..., B, D]`, from masked kernels
    `[in, out]`, or one for each row, `[B, in, out]`, and biases `[B, out]`.
    """
    for number, (kernel, bias) in enumerate(layers):
        x = tf.nn.elu(x) if number else x
        if kernel.shape.rank == 2:
            x = tf.tensordot(x, kernel, 1) + bias
        else:
            x = tf.einsum("...bi,bio->...bo", x, kernel) + bias
    shift, raw_gate = tf.split(x, 2, axis=-1)
    return shift, raw_gate + OPEN


POSTERIORS = {
    "mean_field": MeanField,
    "full_covariance": FullCovariance,
    "iaf": IAF,
}
