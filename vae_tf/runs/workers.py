"""One device, the GPUs of a machine, or the workers of a cluster."""

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
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


def apart(
    strategy: tf.distribute.Strategy, variables: list[keras.Variable]
) -> list[np.ndarray]:
    """What each device has in variables that devices sum when they are read:
    `[devices, ...]` of each, in every worker, all of which ask.
    """
    own = strategy.run(lambda: [(v.value + 0)[tf.newaxis] for v in variables])
    return [strategy.gather(value, axis=0).numpy() for value in own]


def put_back(
    strategy: tf.distribute.Strategy,
    variables: list[keras.Variable],
    values: tuple[np.ndarray, ...],
) -> None:
    """Gives each device what it had; the first one all, of another number of
    devices.
    """
    devices = strategy.num_replicas_in_sync

    def of_each(variable, value):
        value = value.reshape(-1, *variable.shape)
        if len(value) == devices:
            return value
        rest = np.zeros((devices - 1, *variable.shape), value.dtype)
        return np.concatenate([value.sum(0, value.dtype)[np.newaxis], rest])

    parts = [
        tf.constant(of_each(variable, value))
        for variable, value in zip(variables, values, strict=True)
    ]

    def one():
        context = tf.distribute.get_replica_context()
        for variable, part in zip(variables, parts, strict=True):
            variable.assign(part[context.replica_id_in_sync_group])

    strategy.run(one)
