"""A client of a served model, and pictures of it:

python -m vae_tf.serving.client sample --n 16 --out samples.png
python -m vae_tf.serving.client status

Over REST it needs NumPy and the standard library, over gRPC TensorFlow, too;
the command line needs what the package does."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vae_tf.serving import endpoints, splitting
from vae_tf.serving.arguments import ARGUMENTS, files, latents, pixels, seeds
from vae_tf.serving.endpoints import MODEL, URL
from vae_tf.serving.errors import InvalidRequest
from vae_tf.serving.replies import State
from vae_tf.serving.rest_transport import Rest
from vae_tf.serving.transports import Transport
from vae_tf.settings import UserError


class Posterior(NamedTuple):
    """Of q(z|x), [N, D] each."""

    mean: np.ndarray
    stddev: np.ndarray


class Sample(NamedTuple):
    """z ~ p(z) [N, D], the mean of p(x|z) and x ~ p(x|z), [N, H, W, C] each."""

    z: np.ndarray
    mean: np.ndarray
    image: np.ndarray


class Score(NamedTuple):
    """The ELBO = reconstruction - KL and an estimate of log p(x), in nats, [N]
    each.
    """

    elbo: np.ndarray
    kl: np.ndarray
    reconstruction: np.ndarray
    log_marginal_likelihood: np.ndarray


class Explanation(NamedTuple):
    """A `Score`, [N] each, and what its terms are made of, in nats: E_q[log
    p(x_i|z)] of each pixel [N, H, W, C], and KL(q(z_d|x) || p(z_d)) of each
    dimension [N, D]; None of a model that has no such parts.
    """

    elbo: np.ndarray
    kl: np.ndarray
    reconstruction: np.ndarray
    log_marginal_likelihood: np.ndarray
    reconstruction_per_pixel: np.ndarray | None = None
    kl_per_dimension: np.ndarray | None = None


class EncodedFile(NamedTuple):
    """Of q(z|x), [N, D] each, where x is the image in a file: `image` [N, H, W,
    C], as the model sees it. Zeros where a file is not `valid` [N], which is to
    hold an image.
    """

    mean: np.ndarray
    stddev: np.ndarray
    image: np.ndarray
    valid: np.ndarray


class ScoredFile(NamedTuple):
    """A `Score`, [N] each, with `image` and `valid` as of `EncodedFile`."""

    elbo: np.ndarray
    kl: np.ndarray
    reconstruction: np.ndarray
    log_marginal_likelihood: np.ndarray
    image: np.ndarray
    valid: np.ndarray


class Client:
    """A served model. Several threads may share it.

    Its methods take and return NumPy arrays with a leading axis N of any
    length >= 1, and row i of an answer depends on row i of the arguments
    alone. All of them raise an InvalidRequest (a ValueError) of an argument
    that the model cannot answer, as a rule before anything is sent, and a
    ServingError (see its subclasses in `errors`) where there is no answer.

    Proxies that the environment names (`http_proxy` and others) are not used,
    over either transport. Tokens and passwords are in no message.

    Args:
      url: `http://host:port`, `https://host:port`, `grpc://host:port` or
        `grpcs://host:port` (gRPC with TLS), or `bundle:path` of an export on
        this machine, which then runs in this process. `user:password@` before
        the host is sent as Basic authorization.
      model: the name under which the server has it.
      timeout: seconds of a request in all, its repetitions included.
      retries: how often a request is asked again of a server that is
        unavailable.
      rows_per_request: longer arguments are sent in several requests, to
        one version of the model. At most the server's `max_batch_size`.
      max_message_bytes: largest request and reply. Rows that are too large
        together are sent in several requests, too.
      version: the version to ask; None for the server's latest.
      label: the server's name for the version to ask, such as `stable`.
      token: sent as Bearer authorization. Without TLS, and to another machine,
        there is a warning.
      headers: name -> value, sent with each request (as metadata over gRPC). A
        `Host` takes the place of the URL's, as KServe wants it.
      ca_file: certificates (PEM) of the authorities to trust over `https` and
        `grpcs`. None: over `https` the machine's, over `grpcs` those that
        gRPC brings.

    Raises:
      UserError: an argument is none of these.
    """

    def __init__(
        self,
        url: str = URL,
        model: str = MODEL,
        timeout: float = 30.0,
        retries: int = 3,
        rows_per_request: int = 256,
        max_message_bytes: int = 2**28,
        version: int | None = None,
        label: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike | None = None,
    ):
        # gRPC holds sizes in an int32, and a version in an int64.
        _require_integer("retries", retries, 0, 31)
        _require_integer("rows_per_request", rows_per_request, 1, 31)
        _require_integer("max_message_bytes", max_message_bytes, 1, 31)
        if version is not None:
            _require_integer("version", version, 0, 63)
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float)
            or not 0 < timeout < 2**31
        ):
            raise UserError(
                "timeout: expected seconds > 0 and < 2^31, received "
                f"{timeout!r}."
            )
        _require_name("model", model)
        if label is not None:
            _require_name("label", label)
        if version is not None and label is not None:
            raise UserError(
                "label: expected one of a version and a label, received "
                f"{version} and {label!r}."
            )
        self.rows_per_request = rows_per_request
        self._transport = connect(
            url,
            model,
            timeout=timeout,
            retries=retries,
            max_message_bytes=max_message_bytes,
            version=version,
            label=label,
            token=token,
            headers=headers,
            ca_file=ca_file,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def decode(self, z: ArrayLike) -> np.ndarray:
        """z [N, D], finite -> the mean of p(x|z) [N, H, W, C]."""
        return self._ask("decode", z=latents(z))["image"]

    def decode_sample(self, z: ArrayLike, seed: ArrayLike) -> np.ndarray:
        """z [N, D] and integers [N] -> draws of p(x|z) [N, H, W, C]."""
        inputs = {"z": latents(z), "seed": seeds(seed)}
        return self._ask("decode_sample", **inputs)["image"]

    def encode(self, image: ArrayLike) -> Posterior:
        """x [N, H, W, C] in [0, 1] -> mean and standard deviation of q(z|x)."""
        return Posterior(**self._ask("encode", image=pixels(image)))

    def encode_sample(self, image: ArrayLike, seed: ArrayLike) -> np.ndarray:
        """x [N, H, W, C] in [0, 1] and integers [N] -> draws of q(z|x) [N,
        D].
        """
        inputs = {"image": pixels(image), "seed": seeds(seed)}
        return self._ask("encode_sample", **inputs)["z"]

    def sample(self, seed: ArrayLike) -> Sample:
        """Integers [N], one per image -> draws of the model, the same for the
        same seed.
        """
        return Sample(**self._ask("sample", seed=seeds(seed)))

    def sample_png(self, seed: ArrayLike) -> list[bytes]:
        """Integers [N] -> the means that `sample` gives, as N PNG files."""
        return list(self._ask("sample_png", seed=seeds(seed))["image_bytes"])

    def reconstruct(self, image: ArrayLike) -> np.ndarray:
        """x [N, H, W, C] in [0, 1] -> the mean of p(x|z) at the mean of q(z|x),
        [N, H, W, C].
        """
        return self._ask("reconstruct", image=pixels(image))["image"]

    def score(self, image: ArrayLike, seed: ArrayLike) -> Score:
        """x [N, H, W, C] in [0, 1], and integers [N] for the draws of z -> the
        ELBO, its terms and log p(x); NaN for an image that p(x|z) gives no
        probability, such as a grey one where it is a Bernoulli's.
        """
        inputs = {
            "image": pixels(image),
            "seed": seeds(seed),
        }
        return Score(**self._ask("score", **inputs))

    def explain(self, image: ArrayLike, seed: ArrayLike) -> Explanation:
        """As `score`, of the same draws, and by pixel and dimension."""
        inputs = {"image": pixels(image), "seed": seeds(seed)}
        return Explanation(**self._ask("explain", **inputs))

    def encode_bytes(
        self, image_bytes: Sequence[bytes], seed: ArrayLike
    ) -> EncodedFile:
        """N PNG or JPEG files, fitted and converted as those of training, and
        integers [N] for what that draws -> `encode` of the images in them.
        """
        inputs = {"image_bytes": files(image_bytes), "seed": seeds(seed)}
        return EncodedFile(**self._ask("encode_bytes", **inputs))

    def score_bytes(
        self, image_bytes: Sequence[bytes], seed: ArrayLike
    ) -> ScoredFile:
        """As `encode_bytes`, of the same pixels, -> `score`."""
        inputs = {"image_bytes": files(image_bytes), "seed": seeds(seed)}
        return ScoredFile(**self._ask("score_bytes", **inputs))

    def predict(
        self, signature: str, /, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """What any signature answers: output name -> [N, ...]. `z`, `image`,
        `image_bytes` and `seed` are as those of the methods above.
        """
        if not inputs or set(inputs) - set(ARGUMENTS):
            raise InvalidRequest(
                f"{signature}: expected inputs of {', '.join(ARGUMENTS)}, "
                f"received {', '.join(inputs) or 'none'}."
            )
        return self._ask(
            signature,
            **{name: ARGUMENTS[name](value) for name, value in inputs.items()},
        )

    def signatures(self) -> list[str]:
        """Their names."""
        return sorted(self._transport.signatures())

    def status(self) -> dict[int, State]:
        """Version -> state, a string, which is AVAILABLE for one that answers;
        its `error` says why a version failed. Of the version that is asked
        alone where it is named.
        """
        return self._transport.status()

    def _ask(self, signature: str, **inputs) -> dict[str, np.ndarray]:
        return splitting.ask(
            self._transport, signature, inputs, self.rows_per_request
        )


def connect(
    url: str,
    model: str,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    ca_file: str | os.PathLike | None = None,
    **settings,
) -> Transport:
    """The transport that a URL names.

    Args:
      url: as `Client` takes it, as are the next four.
      model: the name under which the server has it.
      token: Bearer authorization.
      headers: name -> value.
      ca_file: certificates (PEM).
      **settings: of `Transport`.

    Raises:
      UserError: it names none.
    """
    if isinstance(url, str) and url.startswith("bundle:"):
        sent = {"token": token, "headers": headers, "ca_file": ca_file}
        named = {name: settings.get(name) for name in ("version", "label")}
        for name, value in (sent | named).items():
            if value is not None:
                raise UserError(
                    f"{name}: expected none with a bundle, whose path names "
                    "one version, received one."
                )
        # Here, because it loads TensorFlow's C library.
        from vae_tf.serving.bundle_transport import Bundle

        return Bundle(url, model, **settings)
    endpoint = endpoints.endpoint(url, token, headers, ca_file)
    if endpoint.scheme in ("http", "https"):
        return Rest(endpoint, model, **settings)
    # Here, because it imports TensorFlow, which REST does without.
    from vae_tf.serving.grpc_transport import Grpc

    return Grpc(endpoint, model, **settings)


def _require_integer(name: str, value, least: int, bits: int) -> None:
    if type(value) is not int or not least <= value < 2**bits:
        raise UserError(
            f"{name}: expected an integer >= {least} and < 2^{bits}, received "
            f"{value!r}."
        )


def _require_name(name: str, value) -> None:
    try:
        is_name = isinstance(value, str) and bool(value.encode())
    except UnicodeError:  # half a character
        is_name = False
    if not is_name:
        raise UserError(f"{name}: expected a name, received {value!r}.")


def main() -> None:
    """Runs the command that the first word of the command line names."""
    # Here, because it needs more than NumPy.
    from vae_tf.serving import client_commands

    client_commands.main(Client, __doc__)


if __name__ == "__main__":
    main()
