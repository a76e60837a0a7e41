"""Small real trainings: the steps of `trainer fit` up to the export, on a few images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from trainer.config import FitConfig
from trainer.data import Dataset
from trainer.errors import Interrupted
from trainer.fit import prepare
from trainer.signals import Signals
from trainer.training.loop import Start, TrainResult, train
from trainer.training.network import Network
from trainer.training.settings import resolve
from trainer.training.throughput import announce_duration, measure_throughput
from trainer.training.timer import Timer


class Recorder:
    """Callbacks that keep the epochs and count the calls of `on_step`."""

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, float]] = []
        self.steps = 0

    def on_step(self, step: int, total_steps: int) -> None:
        self.steps += 1

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        self.epochs.append(entry)

    def on_train_end(self) -> None:
        pass


class StopWhen(Signals):
    """A signal that comes once `condition` holds; counts how often it is asked for."""

    def __init__(self, condition: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.checks = 0
        self._condition = condition

    def check_interrupted(self) -> None:
        self.checks += 1
        if self._condition():
            raise Interrupted("stop", 143)


@dataclass(frozen=True)
class Trained:
    """A network after its training."""

    network: Network
    start: Start
    result: TrainResult


def make_network(config: FitConfig, dataset: Dataset) -> Network:
    """The network of a configuration on this machine's one device."""
    return Network(resolve(config, dataset), dataset, tf.distribute.get_strategy())


def start_of(dataset: Dataset, config: FitConfig) -> Start:
    """The state before the first step of a training."""
    settings, network = resolve(config, dataset), make_network(config, dataset)
    throughput = measure_throughput(network, dataset, settings, Timer(config.time_limit))
    return prepare(network, dataset, settings, throughput, Signals())


def run_training(
    folder: Path,
    dataset: Dataset,
    config: FitConfig,
    callbacks: Recorder | None = None,
    signals: Signals | None = None,
    *,
    network: Network | None = None,
) -> Trained:
    """Train with checkpoints in `folder`."""
    settings = resolve(config, dataset)
    network = network or make_network(config, dataset)
    signals = signals or Signals()
    throughput = measure_throughput(network, dataset, settings, Timer(config.time_limit))
    announce_duration(throughput, settings, dataset)
    start = prepare(network, dataset, settings, throughput, signals)
    result = train(network, dataset, settings, start, folder, callbacks or Recorder(), throughput, signals)
    return Trained(network, start, result)
