"""Every setting of a run, each declared once: type, default, choices, help. No
TensorFlow here.

The scripts make their flags from these declarations and a run's `config.json`
holds their values."""

import dataclasses
import json
import math
import pathlib
import types
import typing
from typing import Any

# A family's members. A likelihood comes with the pixel values it is a
# distribution over.
LIKELIHOODS = {"bernoulli": "binary"}
POSTERIORS = ("mean_field",)
PRIORS = ("standard_normal",)
NETWORKS = ("mlp",)
ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "silu", "softplus", "tanh")
BINARIZATIONS = ("none", "threshold", "static", "dynamic")
OPTIMIZERS = ("adam", "rmsprop", "sgd")
LR_SCHEDULES = ("constant", "cosine", "exponential")
MAX_SEED = 2**31 - 1  # TensorFlow's stateless seeds are pairs of int32.
SPLITS = ("train", "validation", "test")


# Why a likelihood over {0, 1} refuses grey pixels.
GREY_VALUES = (
    "a distribution over {0, 1} gives grey values no probability; see "
    "Loaiza-Ganem and Cunningham 2019, 'The continuous Bernoulli: fixing a "
    "pervasive error in variational autoencoders', arXiv:1907.06845"
)


# What a run must know of its data, as `Data.describe` gives it.
DESCRIPTION = {"variant", "levels", "image_shape", "splits", "checksum"}


class UserError(ValueError):
    """A user's mistake. The message names the argument, what was expected and
    what was received.
    """


def choose(argument: str, value: Any, family: dict[str, type], **kwargs) -> Any:
    """The member of `family` named `value`, made with `kwargs`; an instance is
    returned as it is.

    Raises:
      UserError: `value` is a string that names no member of `family`.
    """
    if not isinstance(value, str):
        return value
    if value not in family:
        raise UserError(
            f"{argument}: expected one of {', '.join(family)}, received "
            f"{value!r}."
        )
    return family[value](**kwargs)


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
    if isinstance(field.type, types.UnionType):
        return typing.get_args(field.type)[0], True
    return typing.get_origin(field.type) or field.type, False


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
    posterior: str = setting(
        "mean_field", "family of q(z|x)", choices=POSTERIORS
    )
    prior: str = setting("standard_normal", "family of p(z)", choices=PRIORS)
    network: str = setting(
        "mlp", "body of encoder and decoder", choices=NETWORKS
    )
    hidden_units: tuple[int, ...] = setting(
        (400, 256),
        "widths of the encoder's hidden layers; the decoder mirrors them",
        minimum=1,
    )
    activation: str = setting(
        "relu", "nonlinearity of the hidden layers", choices=ACTIVATIONS
    )

    # Data.
    dataset: str | None = setting(
        None,
        "a TFDS image dataset or 'digits' (unset: mnist, or digits where "
        "mnist is out of reach)",
    )
    data_dir: str | None = setting(
        None, "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)"
    )
    binarization: str | None = setting(
        None,
        "how grey pixels become 0 or 1 (unset: what the likelihood needs)",
        choices=BINARIZATIONS,
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
        None, "compile the step with XLA (unset: yes)"
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
        "early_stopping_patience",
        "data_dir",
        "run_dir",
        "resume",
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
