"""One device, the GPUs of a machine, or the workers of a cluster."""

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vae_tf.config import Config
from vae_tf.settings import UserError


def strategy_of(config: Config) -> tf.distribute.Strategy:
    """The strategy that `config` names, to be made before TensorFlow computes
    anything.

    Raises:
      UserError: it asks for workers without a cluster, or for workers with
        what they cannot share.
    """
    cluster = _cluster()
    name = config.strategy
    if name == "auto":
        gpus = tf.config.list_logical_devices("GPU") if not cluster else []
        name = "multi_worker" if cluster else "one_device"
        name = "mirrored" if len(gpus) > 1 else name
    if name == "one_device":
        return tf.distribute.get_strategy()  # TensorFlow's own
    if config.inference != "amortized":
        raise UserError(
            "--strategy: expected one_device with --inference "
            f"{config.inference}, whose table has but one place, received "
            f"{name}."
        )
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if not cluster:
        raise UserError(
            "--strategy: expected the workers of a cluster in the environment "
            "variable TF_CONFIG (vae-launch sets it), received none."
        )
    if not config.run_dir:
        raise UserError(
            "--run_dir: expected a directory that all workers share, received "
            "none."
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _cluster() -> list[Any]:
    """Addresses of the workers that TF_CONFIG names; none where it names one
    machine at most.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        found = json.loads(text).get("cluster", {})
        workers = [*found.get("chief", []), *found.get("worker", [])]
    except (ValueError, AttributeError, TypeError):
        raise UserError(
            "TF_CONFIG: expected JSON with a cluster of workers, received "
            f"{text!r}."
        ) from None
    return workers if len(workers) > 1 else []


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return True
    kind, number = resolver.task_type, resolver.task_id
    has_chief = "chief" in resolver.cluster_spec().jobs
    return kind == "chief" or (not has_chief and number == 0)


def any_of(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether any worker says so: all of them ask, and wait for each other."""
    if strategy.cluster_resolver is None:
        return flag

    sums = _summing(strategy)(tf.constant(float(flag)))
    return bool(strategy.experimental_local_results(sums)[0] > 0)


@functools.cache
def _summing(strategy: tf.distribute.Strategy) -> Callable:
    """A number of each worker -> their sum."""

    def one(number):
        context = tf.distribute.get_replica_context()
        # Computed here, on a device: one of the caller's has none.
        return context.all_reduce("sum", number + 0)

    return tf.function(
        lambda number: strategy.run(one, (number,)), autograph=False
    )
