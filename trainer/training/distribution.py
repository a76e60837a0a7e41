"""Distribution strategy: one device, several, or several machines."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from trainer.data import Dataset, augment_for, make_for_train
from trainer.errors import InputError, RunError
from trainer.machine import limit_tensorflow_threads, quiet_stderr
from trainer.signals import Signals
from trainer.training.settings import FitSettings

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger("trainer")

LOG_EVERY_S = 5.0
POLL_S = 0.5


def start_strategy(signals: Signals) -> tf.distribute.Strategy:
    """Start TensorFlow and make the strategy; see `make_strategy` for the errors.

    TensorFlow's warnings about missing CUDA drivers are dropped: it logs them before it reads any of its settings. With
    several workers its messages are kept, because they help.
    """
    log.info("starting TensorFlow")
    limit_tensorflow_threads()
    with quiet_stderr() if count_workers() == 1 else signals.deferred():
        return make_strategy(signals.check_interrupted)


def make_strategy(check_interrupted: Callable[[], None] = lambda: None) -> tf.distribute.Strategy:
    """A strategy over several workers if TF_CONFIG names them, else over all GPUs of this machine, else one device.

    Must run before any other TensorFlow operation: several workers are set up at program start-up.
    Raises InputError for a TF_CONFIG that cannot be used, RunError where the workers do not all connect.
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
    """Return once every worker answers at its address; meanwhile, log which do not.

    TensorFlow waits, too, but in one call that handles no signal and logs nothing.
    """
    config = json.loads(os.environ["TF_CONFIG"])
    addresses = config["cluster"]["worker"]
    own = addresses[config["task"]["index"]] if config["task"]["type"] == "worker" else None
    logged_s = -LOG_EVERY_S
    # The others check this address, too, until TensorFlow listens on it.
    with _listening(own) if own else nullcontext():
        while silent := [address for address in addresses if address != own and not _answers(address)]:
            if time.monotonic() - logged_s >= LOG_EVERY_S:
                logged_s = time.monotonic()
                log.info("waiting for the other workers of TF_CONFIG: no answer from %s", ", ".join(silent))
            time.sleep(POLL_S)
            check_interrupted()  # an exception raised by the handler could be lost in a log line


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


def distribute_batches(
    strategy: tf.distribute.Strategy, dataset: Dataset, settings: FitSettings, *, first_step: int, flips: bool
) -> Iterator[Any]:
    """Endless training batches of this worker from `first_step` on, one element for each of its devices in turn."""
    config, batch_size = settings.config, settings.plan.batch_size
    default = settings.recipe.default_augment
    augment = augment_for(dataset, config.augment, config.flip, default=default, flips=flips)

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = make_for_train(
            dataset.train,
            batch_size=batch_size,
            seed=config.seed,
            augment=augment,
            first_step=first_step,
            shard=(context.input_pipeline_id, context.num_input_pipelines),
        )
        return batches.rebatch(batch_size // strategy.num_replicas_in_sync)

    return iter(strategy.distribute_datasets_from_function(make))


def count_workers() -> int:
    """Number of workers in TF_CONFIG, at least 1. Raises InputError for a malformed TF_CONFIG."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        return max(1, len(config.get("cluster", {}).get("worker", [])))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            'TF_CONFIG: a JSON object {"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", '
            f'"index": 0}}}} is expected: {error}'
        ) from error


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker, the first of several, writes checkpoints, tracks and publishes."""
    resolver = strategy.cluster_resolver
    return not (resolver and resolver.task_type) or resolver.task_id == 0


def make_agreement(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """All-reduce mean of a number over the workers; each call waits for all of them.

    Workers must agree on step counts, or their collectives deadlock: they decide by the mean.
    """
    if count_workers() == 1:
        return lambda value: value
    import tensorflow as tf

    @tf.function
    def mean(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(lambda: tf.identity(value)), axis=None)

    return lambda value: float(mean(tf.constant(value, tf.float32)))
