"""What pixels become so that a likelihood describes them: which binarisation
and dequantisation, and what is refused."""

import warnings

from vae_tf.config import LIKELIHOODS, NOT_IN_SUPPORT
from vae_tf.data.splits import Source
from vae_tf.settings import UserError


def suited(
    source: Source,
    likelihood: str,
    binarization: str | None,
    dequantization: str | None,
    redrawn: bool = True,
) -> tuple[str, str]:
    """Binarisation and dequantisation of these images, for this family of
    p(x|z): those asked for, or where None, those that it needs, with bits that
    are drawn anew in each epoch where they may be `redrawn`.

    Raises:
      UserError: the likelihood does not describe such pixels.
    """
    support = LIKELIHOODS[likelihood]
    if source.levels == 2:
        # Binary already: each of the three would give back the same bits.
        binarization = "none"
    unset = binarization is None
    bits = "dynamic" if redrawn else "static"
    binarization = binarization or (bits if support == "binary" else "none")
    dequantization = dequantization or (
        "uniform" if support == "interval" else "none"
    )
    levels = source.levels if binarization == "none" else 2
    if dequantization == "uniform" and support != "interval":
        raise UserError(
            f"--dequantization: expected none for a {likelihood} likelihood, "
            f"received 'uniform': {NOT_IN_SUPPORT[support]}."
        )
    if dequantization == "none" and support == "interval":
        warnings.warn(
            f"--dequantization: none leaves the pixels of {source.name} at "
            f"{levels} values, where the density of a {likelihood} likelihood "
            "can grow without bound: its nats say nothing of the model.",
            stacklevel=3,
        )
    if support == "binary" and levels > 2:
        raise UserError(
            f"--binarization: expected threshold, static or dynamic for a "
            f"{likelihood} likelihood on the {levels} grey levels of "
            f"{source.name}, received 'none': {NOT_IN_SUPPORT[support]}."
        )
    if support == "levels" and levels not in (2, 256):
        raise UserError(
            f"--likelihood: expected one for the {levels} grey levels of "
            f"{source.name}, received {likelihood!r}: "
            f"{NOT_IN_SUPPORT[support]}."
        )
    if unset and binarization == bits and source.images["train"].shape[-1] > 1:
        warnings.warn(
            f"--binarization: unset, so each colour channel of {source.name} "
            "becomes a random bit; --likelihood discretized_logistic (levels) "
            "or continuous_bernoulli (densities) keeps the colours.",
            stacklevel=3,
        )
    return binarization, dequantization
