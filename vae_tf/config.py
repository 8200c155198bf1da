"""Every setting of a run, each declared once: type, default, choices, help. No
TensorFlow here.

The scripts make their flags from these declarations and a run's `config.json`
holds their values."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from vae_tf.settings import Settings, UserError, setting

# A family's members. A likelihood comes with the pixel values it is a
# distribution over.
LIKELIHOODS = {
    "bernoulli": "binary",
    "continuous_bernoulli": "interval",
    "normal": "interval",
    "discretized_logistic": "levels",
}
NORMAL_SCALES = ("fixed", "shared", "per_pixel")
INFERENCES = ("amortized", "mean_field")
POSTERIORS = ("mean_field", "full_covariance", "iaf")
PRIORS = ("standard_normal", "mixture", "vamp")
NETWORKS = ("mlp", "gated", "conv")
OBJECTIVES = ("elbo", "iwae")
GRADIENT_ESTIMATORS = ("auto", "plain", "stl", "dreg")
KL_SCHEDULES = ("linear", "cyclical")
TRAIN_VARIABLES = ("all", "inference", "generative", "alternate")
ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "silu", "softplus", "tanh")
BINARIZATIONS = ("none", "threshold", "static", "dynamic")
DEQUANTIZATIONS = ("none", "uniform")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
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
DESCRIPTION = {
    "variant": str,
    "levels": int,
    "image_shape": list,
    "splits": dict,
    "checksum": str,
}


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
    lambda_margin: float = setting(
        0.0,
        "lambda of a continuous Bernoulli is kept so far from 0 and 1 (1e-4 in "
        "the code of its authors)",
        minimum=0.0,
        below=0.5,
    )
    inference: str = setting(
        "amortized",
        "whether an encoder, shared by all images, gives q(z|x), or free "
        "parameters of each training image do (without an encoder, which "
        "network settings then do not concern)",
        choices=INFERENCES,
    )
    layout: int = setting(
        2,
        "of the parameters of posterior heads: 1 as before version 0.2",
        minimum=1,
        maximum=2,
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
        "widths of the encoder's hidden layers (mlp, gated) or channels of "
        "its stages, each at half the size (conv); the decoder mirrors them "
        "(unset: 400,256, or for conv by the image's size)",
        minimum=1,
    )
    activation: str = setting(
        "relu", "nonlinearity of the hidden layers", choices=ACTIVATIONS
    )

    # Data.
    dataset: str | os.PathLike | None = setting(
        None,
        "a TFDS image dataset, 'digits', or a path to a folder of images "
        "(folders train, validation and test in it are its splits, others its "
        "classes) or to an .npz of arrays x_train, y_train, x_test, y_test "
        "(unset: mnist, or digits where mnist is out of reach)",
        path=True,
    )
    data_dir: str | None = setting(
        None,
        "TFDS data directory (unset: $TFDS_DATA_DIR, else TFDS's own)",
        path=True,
        remote=True,
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
        "pass at a given z and the prior is not vamp, else plain",
        choices=GRADIENT_ESTIMATORS,
    )
    beta: float = setting(1.0, "weight of the KL divergence", minimum=0)
    kl_warmup_epochs: int | None = setting(
        None,
        "epochs over which that weight rises linearly (unset: 3/8 of the "
        "training, or the epochs of 1,000 steps where that is less; 0 with "
        "iwae)",
        minimum=0,
    )
    kl_schedule: str = setting(
        "linear",
        "whether it rises once, or again and again, staying at the top for as "
        "long as it rose",
        choices=KL_SCHEDULES,
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
    initial_run: str | None = setting(
        None,
        "a run of the same model, from whose best weights training starts "
        "(unset: from random ones)",
        path=True,
    )
    optimizer: str = setting("adam", "gradient method", choices=OPTIMIZERS)
    learning_rate: float = setting(2e-3, "step size at the start", above=0.0)
    lr_schedule: str = setting(
        "cosine",
        "course of the step size over --epochs, which a resumed run may "
        "lengthen; cosine rises over the first twentieth of the steps, then "
        "falls to 0, exponential falls to a hundredth",
        choices=LR_SCHEDULES,
    )
    ema_momentum: float = setting(
        0.0,
        "momentum of a moving average of the weights, per update, that is "
        "validated, kept and exported in their place (0: none)",
        minimum=0.0,
        below=1.0,
    )
    batch_size: int = setting(256, "images per step", minimum=1)
    epochs: int | None = setting(
        None,
        "passes over the training images (unset: 80, or as many as make 2,400 "
        "steps)",
        minimum=1,
    )
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
    strategy: str = setting(
        "auto",
        "devices that share each batch: one; the GPUs of this machine; or the "
        "workers that TF_CONFIG names (auto: what there is)",
        choices=STRATEGIES,
    )
    mixed_precision: bool = setting(
        False,
        "train with matrix products in bfloat16; what is measured or exported "
        "afterwards is float32",
    )

    # Pictures.
    figures_every: int | None = setting(
        None,
        "epochs from one set of pictures to the next (unset: a tenth of the "
        "epochs; 0: none)",
        minimum=0,
    )
    tensorboard: bool = setting(
        True, "write metrics and pictures for TensorBoard, too"
    )

    # Where.
    run_dir: str | None = setting(
        None,
        "where the run is written (unset: a fresh runs/<dataset>-<time>)",
        path=True,
    )
    resume: bool = setting(
        False, "go on with the run in --run_dir from where it was kept last"
    )
    checkpoint_minutes: float = setting(
        10.0,
        "a state to resume from is also kept so often within an epoch",
        above=0.0,
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
        "checkpoint_minutes",
        "learning_rate",
        "strategy",
    )

    def __post_init__(self):
        if isinstance(self.dataset, os.PathLike):
            # Absolute: "mnist" would be the name of another dataset.
            path = os.path.abspath(os.path.expanduser(self.dataset))
            object.__setattr__(self, "dataset", path)
        super().__post_init__()
        for name, none in (
            ("beta", (1.0,)),
            ("kl_warmup_epochs", (None, 0)),
            ("kl_schedule", ("linear",)),
            ("free_bits", (0.0,)),
        ):
            value = getattr(self, name)
            if self.objective == "iwae" and value not in none:
                raise UserError(
                    f"--{name}: expected {none[-1]} with --objective iwae, "
                    "whose KL divergence lies inside a logarithm and cannot be "
                    f"weighed, received {value!r}."
                )

        if self.network == "gated" and self.activation != "relu":
            raise UserError(
                "--activation: expected none with --network gated, whose "
                f"nonlinearity is its gates, received {self.activation!r}."
            )

        for name, expected, why in (
            ("posterior", ("mean_field",), "which has a loc and a scale alone"),
            (
                "prior",
                ("standard_normal", "mixture"),
                "which has no encoder to make a prior of",
            ),
            ("train_variables", ("all",), "which moves rows and theta at once"),
            ("initial_run", (None, "none"), "whose rows are of its own images"),
            (
                "binarization",
                (None, "none", "threshold", "static"),
                "whose parameters are those of the same bits in each epoch",
            ),
        ):
            value = getattr(self, name)
            if self.inference == "mean_field" and value not in expected:
                words = ", ".join(filter(None, expected))
                raise UserError(
                    f"--{name}: expected {words} with --inference mean_field, "
                    f"{why}, received {value!r}."
                )

    @classmethod
    def load(cls, run_dir: str | os.PathLike) -> "Config":
        """The settings of the run in `run_dir`; raises UserError as `read_run`
        does.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {"layout": 1} | {  # of a file that says nothing of it
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


def require_split(split: str) -> None:
    """Raises UserError unless images have a split of this name."""
    if split not in SPLITS:
        raise UserError(
            f"--split: expected one of {', '.join(SPLITS)}, received {split!r}."
        )


def read_run(run_dir: str | os.PathLike) -> dict[str, Any]:
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
            f"{str(run_dir)!r} ({error.strerror})."
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path}: expected the JSON of a run, received a damaged file "
            f"({error})."
        ) from None
    data = values.get("data") if isinstance(values, dict) else None
    if not (isinstance(data, dict) and _describes(data)):
        raise UserError(
            f"{path}: expected a run's settings and, under `data`, "
            f"{', '.join(sorted(DESCRIPTION))}, received something else."
        )
    if not isinstance(values.setdefault("versions", {}), dict):
        raise UserError(
            f"{path}: expected versions of packages by name under `versions`, "
            f"received {values['versions']!r}."
        )
    return values


def _describes(data: dict[str, Any]) -> bool:
    """Whether these are values as `Data.describe` gives them."""
    if any(not isinstance(data.get(k), v) for k, v in DESCRIPTION.items()):
        return False
    shape, splits = data["image_shape"], data["splits"]
    counts = [data["levels"], *shape, *splits.values()]
    return (
        len(shape) == 3
        and set(splits) == set(SPLITS)
        and all(type(count) is int and 0 < count < 2**63 for count in counts)
    )
