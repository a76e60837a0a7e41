"""One device, several, or several machines: what `tf.distribute` needs to be told."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from trainer.errors import InputError, RunError

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger("trainer")

TELL_EVERY_S = 5.0
POLL_S = 0.5


def make_strategy(check_interrupted: Callable[[], None] = lambda: None) -> tf.distribute.Strategy:
    """Several workers where TF_CONFIG names them, else all GPUs of this machine, else its one device.

    Must run before any other TensorFlow operation: several workers are set up at program start-up.
    Raises InputError for a TF_CONFIG that cannot be used, RunError where the workers do not come together.
    """
    import tensorflow as tf

    if count_workers() > 1:
        try:
            _wait_for_workers(check_interrupted)
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"TF_CONFIG: cannot be used: {error!r}") from error
        except tf.errors.OpError as error:
            raise RunError(f"the workers of TF_CONFIG did not come together: {error.message}") from error
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _wait_for_workers(check_interrupted: Callable[[], None]) -> None:
    """Return once every worker answers at its address; meanwhile, say which do not.

    TensorFlow waits, too, but in one call that lets no signal through and says nothing.
    """
    config = json.loads(os.environ["TF_CONFIG"])
    addresses = config["cluster"]["worker"]
    own = addresses[config["task"]["index"]] if config["task"]["type"] == "worker" else None
    told = -TELL_EVERY_S
    # The others look here, too, until TensorFlow listens in our place.
    with _listening(own) if own else nullcontext():
        while silent := [address for address in addresses if address != own and not _answers(address)]:
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                log.info("waiting for the other workers of TF_CONFIG: no answer from %s", ", ".join(silent))
            time.sleep(POLL_S)
            check_interrupted()  # a signal that raised by itself could be lost in a log line


def _listening(address: str) -> socket.socket:
    try:
        return socket.create_server(("", _host_and_port(address)[1]))
    except OSError as error:
        raise InputError(f"TF_CONFIG: {address}, this worker's own address, is of no use: {error.strerror}") from error


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=1).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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
