"""One device, several, or several machines: what `tf.distribute` needs to be told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.config import InputError

if TYPE_CHECKING:
    import tensorflow as tf


def make_strategy() -> tf.distribute.Strategy:
    """Several workers where TF_CONFIG names them, else all GPUs of this machine, else its one device.

    Must run before any other TensorFlow operation: several workers are set up at program start-up.
    Raises InputError for a TF_CONFIG that cannot be used.
    """
    import tensorflow as tf

    if count_workers() > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"TF_CONFIG: cannot be used: {error}") from error
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def count_workers() -> int:
    """How many workers TF_CONFIG names, at least 1. Raises InputError where it is not what TensorFlow reads."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        return max(1, len(config.get("cluster", {}).get("worker", [])))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            'TF_CONFIG: a JSON object {"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", '
            f'"index": 0}}}} is expected: {error}'
        ) from error


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker writes checkpoints, tracks and publishes (worker 0 of several)."""
    resolver = strategy.cluster_resolver
    return not (resolver and resolver.task_type) or resolver.task_id == 0


def make_agreement(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """What turns a worker's own measurement into the mean over all workers, once every one of them has come there.

    A decision from the mean is everywhere the same. Workers whose calls differ in their number of steps wait for each
    other for ever.
    """
    if count_workers() == 1:
        return lambda value: value
    import tensorflow as tf

    @tf.function
    def mean(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(lambda: tf.identity(value)), axis=None)

    return lambda value: float(mean(tf.constant(value, tf.float32)))
