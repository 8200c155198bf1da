"""Every setting of a run, each declared once: type, default, choices, help. No
TensorFlow here.

The scripts make their flags from these declarations and a run's `config.json`
holds their values."""

import dataclasses
import inspect
import json
import math
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any

# A family's members. A likelihood comes with the pixel values it is a
# distribution over.
LIKELIHOODS = {
    "bernoulli": "binary",
    "continuous_bernoulli": "interval",
    "normal": "interval",
    "discretized_logistic": "levels",
}
NORMAL_SCALES = ("fixed", "shared", "per_pixel")
POSTERIORS = ("mean_field", "full_covariance", "iaf")
PRIORS = ("standard_normal", "mixture", "vamp")
NETWORKS = ("mlp", "conv")
OBJECTIVES = ("elbo", "iwae")
GRADIENT_ESTIMATORS = ("auto", "plain", "stl", "dreg")
TRAIN_VARIABLES = ("all", "inference", "generative", "alternate")
ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "silu", "softplus", "tanh")
BINARIZATIONS = ("none", "threshold", "static", "dynamic")
DEQUANTIZATIONS = ("none", "uniform")
OPTIMIZERS = ("adam", "rmsprop", "sgd")
LR_SCHEDULES = ("constant", "cosine", "exponential")
MAX_SEED = 2**31 - 1  # TensorFlow's stateless seeds are pairs of int32.
SPLITS = ("train", "validation", "test")


# Why a likelihood refuses pixels outside its support.
NOT_IN_SUPPORT = {
    "binary": "a distribution over {0, 1} gives grey values no probability; "
    "see Loaiza-Ganem and Cunningham 2019, 'The continuous Bernoulli: fixing a "
    "pervasive error in variational autoencoders', arXiv:1907.06845",
    "levels": "a distribution over the 256 levels of 8-bit images gives what "
    "lies between them no probability",
}


# What a run must know of its data, as `Data.describe` gives it.
DESCRIPTION = {"variant", "levels", "image_shape", "splits", "checksum"}


class UserError(ValueError):
    """A user's mistake. The message names the argument, what was expected and
    what was received.
    """


def choose(
    argument: str, value: Any, family: dict[str, Callable], **kwargs
) -> Any:
    """The member of `family` named `value`, made with `kwargs`; an instance is
    returned as it is. The member takes of `kwargs` those that its constructor
    names, and where one is None, its own default.

    Raises:
      UserError: `value` is a string that names no member of `family`, or the
        member refuses its arguments.
    """
    if not isinstance(value, str):
        return value
    if value not in family:
        raise UserError(
            f"{argument}: expected one of {', '.join(family)}, received "
            f"{value!r}."
        )
    member = family[value]
    named = inspect.signature(member).parameters
    given = {
        name: argument
        for name, argument in kwargs.items()
        if name in named and argument is not None
    }
    try:
        return member(**given)
    except ValueError as error:
        raise UserError(str(error)) from None


def setting(default: Any, help: str, **limits) -> Any:
    """A dataclass field with its help and limits: `choices`, `minimum`,
    `maximum`, `above` (exclusive).
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every set of settings: checks each value against its declaration
    when it is made.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            # object.__setattr__ is how a frozen dataclass may normalise itself
            # (2 -> 2.0, list -> tuple).
            object.__setattr__(
                self, field.name, checked(field, getattr(self, field.name))
            )


def kind(field: dataclasses.Field) -> tuple[type, bool]:
    """`(type, may be None)` of a field annotated `int`, `str | None`,
    `tuple[int, ...]` and the like.
    """
    type_, optional = field.type, False
    if isinstance(type_, types.UnionType):
        type_, optional = typing.get_args(type_)[0], True
    return typing.get_origin(type_) or type_, optional


def expected(field: dataclasses.Field) -> str:
    """What a value of `field` must be, in words."""
    if choices := field.metadata.get("choices"):
        return f"one of {', '.join(choices)}"
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a finite number",
        str: "a string",
        tuple: "integers separated by commas, each",
    }[kind(field)[0]]
    if "minimum" in field.metadata:
        words += f" >= {field.metadata['minimum']}"
    if "maximum" in field.metadata:
        words += f" and <= {field.metadata['maximum']}"
    if "above" in field.metadata:
        words += f" > {field.metadata['above']}"
    return words


def checked(field: dataclasses.Field, value: Any) -> Any:
    """`value` in the field's own type.

    Raises:
      UserError: it has another type, or lies outside the field's choices or
        limits.
    """
    type_, optional = kind(field)
    if value is None and optional:
        return None
    if type_ is float and type(value) is int:
        value = float(value)
    if type_ is tuple and isinstance(value, list):
        value = tuple(value)
    parts = value if type_ is tuple and isinstance(value, tuple) else (value,)
    number = int if type_ is tuple else type_
    limits = field.metadata
    if (
        not isinstance(value, type_)
        or not parts
        or any(type(part) is not number for part in parts)
        or (number is float and not math.isfinite(value))
        or ("choices" in limits and value not in limits["choices"])
        or ("minimum" in limits and min(parts) < limits["minimum"])
        or ("maximum" in limits and max(parts) > limits["maximum"])
        or ("above" in limits and value <= limits["above"])
    ):
        raise UserError(
            f"--{field.name}: expected {expected(field)}, received {value!r}."
        )
    return value


def parsed(field: dataclasses.Field, text: str) -> Any:
    """`text`, as typed on a command line, in the field's type; raises UserError
    as `checked` does.
    """
    type_, _ = kind(field)
    try:
        if type_ is tuple:
            value = tuple(int(part) for part in text.split(","))
        else:
            value = type_(text)
    except ValueError:
        raise UserError(
            f"--{field.name}: expected {expected(field)}, received {text!r}."
        ) from None
    return checked(field, value)


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Every setting of a training run.

    >>> Config(latent_dim=2).latent_dim
    2
    """

    # Model: prior, likelihood, and the variational family that approximates the
    # posterior.
    latent_dim: int = setting(
        2, "dimension D of the latent variable z", minimum=1
    )
    likelihood: str = setting(
        "bernoulli", "family of p(x|z)", choices=tuple(LIKELIHOODS)
    )
    normal_scale: str = setting(
        "shared",
        "scale of a normal likelihood: fixed at 0.1, learned and shared, or a "
        "function of z for each pixel",
        choices=NORMAL_SCALES,
    )
    posterior: str = setting(
        "mean_field", "family of q(z|x)", choices=POSTERIORS
    )
    flow_depth: int = setting(2, "steps of posterior iaf", minimum=1)
    flow_units: tuple[int, ...] = setting(
        (320,), "widths of the hidden layers of a step of iaf", minimum=1
    )
    prior: str = setting("standard_normal", "family of p(z)", choices=PRIORS)
    num_components: int = setting(
        100, "components of prior mixture, pseudo-inputs of vamp", minimum=1
    )
    network: str = setting(
        "mlp", "body of encoder and decoder", choices=NETWORKS
    )
    hidden_units: tuple[int, ...] | None = setting(
        None,
        "widths of the encoder's hidden layers (mlp) or channels of its "
        "stages, each at half the size (conv); the decoder mirrors them "
        "(unset: 400,256 for mlp, by the image's size for conv)",
        minimum=1,
    )
    activation: str = setting(
        "relu", "nonlinearity of the hidden layers", choices=ACTIVATIONS
    )

    # Data.
    dataset: str | None = setting(
        None,
        "a TFDS image dataset, 'digits', or a path to a folder of images "
        "(unset: mnist, or digits where mnist is out of reach)",
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )
    binarization: str | None = setting(
        None,
        "how grey pixels become 0 or 1 (unset: what the likelihood needs)",
        choices=BINARIZATIONS,
    )
    dequantization: str | None = setting(
        None,
        "whether uniform noise fills the steps between grey levels (unset: "
        "what the likelihood needs)",
        choices=DEQUANTIZATIONS,
    )
    image_size: int | None = setting(
        None, "height and width to which images are resized", minimum=1
    )
    channels: int | None = setting(
        None, "1 for grey, 3 for RGB (unset: as stored)", minimum=1, maximum=3
    )

    # Objective.
    objective: str = setting(
        "elbo", "the bound that is maximised", choices=OBJECTIVES
    )
    num_samples: int | None = setting(
        None,
        "K, draws of z for each image in training (unset: 1 for elbo, 5 for "
        "iwae)",
        minimum=1,
    )
    gradient_estimator: str = setting(
        "auto",
        "paths of the gradient; auto is dreg for iwae where log q(z|x) is one "
        "pass at a given z, else plain",
        choices=GRADIENT_ESTIMATORS,
    )
    beta: float = setting(1.0, "weight of the KL divergence", minimum=0)
    kl_warmup_epochs: int = setting(
        0, "epochs over which that weight rises linearly from 0", minimum=0
    )
    free_bits: float = setting(
        0.0, "nats per latent dimension that cost nothing", minimum=0
    )
    train_variables: str = setting(
        "all",
        "phi and theta together, either alone, or one after the other",
        choices=TRAIN_VARIABLES,
    )

    # Training.
    optimizer: str = setting("adam", "gradient method", choices=OPTIMIZERS)
    learning_rate: float = setting(2e-3, "step size at the start", above=0.0)
    lr_schedule: str = setting(
        "cosine",
        "course of the step size; cosine rises over the first twentieth of the "
        "steps, then falls to 0, exponential falls to a hundredth",
        choices=LR_SCHEDULES,
    )
    batch_size: int = setting(256, "images per step", minimum=1)
    epochs: int = setting(80, "passes over the training images", minimum=1)
    early_stopping_patience: int = setting(
        0,
        "stop after this many epochs without a better validation bound (0: "
        "never)",
        minimum=0,
    )
    seed: int = setting(
        0,
        "initial weights, order and noise; never the data",
        minimum=0,
        maximum=MAX_SEED,
    )
    jit_compile: bool | None = setting(
        None, "compile the step with XLA (unset: where it is faster)"
    )
    mixed_precision: bool = setting(
        False,
        "train with matrix products in bfloat16; what is measured or exported "
        "afterwards is float32",
    )

    # Pictures.
    figures_every: int = setting(
        8, "epochs from one set of pictures to the next (0: none)", minimum=0
    )
    tensorboard: bool = setting(
        True, "write metrics and pictures for TensorBoard, too"
    )

    # Where.
    run_dir: str | None = setting(
        None, "where the run is written (unset: a fresh runs/<dataset>-<time>)"
    )
    resume: bool = setting(
        False, "go on with the run in --run_dir from its last finished epoch"
    )

    # What may differ when a run is resumed; everything else is the run.
    RESUMABLE = (
        "epochs",
        "figures_every",
        "tensorboard",
        "early_stopping_patience",
        "data_dir",
        "run_dir",
        "resume",
    )

    def __post_init__(self):
        super().__post_init__()
        for name, none in (
            ("beta", 1.0),
            ("kl_warmup_epochs", 0),
            ("free_bits", 0.0),
        ):
            if self.objective == "iwae" and getattr(self, name) != none:
                raise UserError(
                    f"--{name}: expected {none} with --objective iwae, whose "
                    "KL divergence lies inside a logarithm and cannot be "
                    f"weighed, received {getattr(self, name)!r}."
                )

    @classmethod
    def load(cls, run_dir: str | pathlib.Path) -> "Config":
        """The settings of the run in `run_dir`; raises UserError as `read_run`
        does.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {
            name: value
            for name, value in read_run(run_dir).items()
            if name in names
        }
        try:
            return dataclasses.replace(cls(**values), run_dir=str(run_dir))
        except UserError as error:
            raise UserError(
                f"{pathlib.Path(run_dir) / 'config.json'}: {error}"
            ) from None


def read_run(run_dir: str | pathlib.Path) -> dict[str, Any]:
    """What `config.json` of a run says: its settings, and `data` and `versions`
    beside them.

    Raises:
      UserError: there is no such run, or its `config.json` is damaged.
    """
    path = pathlib.Path(run_dir) / "config.json"
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            "--run_dir: expected a run directory with a config.json, received "
            f"{str(run_dir)!r} "
            f"({error.strerror})."
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path}: expected the JSON of a run, received a damaged file "
            f"({error})."
        ) from None
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, dict) or not DESCRIPTION <= set(data):
        raise UserError(
            f"{path}: expected a run's settings and, under `data`, "
            f"{', '.join(sorted(DESCRIPTION))}, received something else."
        )
    return values
