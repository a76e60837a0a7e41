"""Trials on this machine: each worker has its share of the cores, the memory and the GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from trainer.machine import SHARED_BY
from trainer.runs.run_folder import CHECKPOINTS, is_in_use
from trainer.sweep.executor import FitProcess, Outcome, group_of
from trainer.sweep.search import Trial

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """The part of this machine that a training may use."""

    cores: frozenset[int]
    variables: Mapping[str, str]  # of its environment: the GPUs, and the memory


class LocalExecutor:
    """`workers` trainings at once. See `trainer.sweep.executor.Executor`."""

    keeps_folders = True

    def __init__(self, workers: int) -> None:
        self._shares = {f"worker {index}": share_of_machine(index, workers) for index in range(workers)}
        self._free = list(self._shares)

    def room(self) -> int:
        return len(self._shares)

    def start(self, trial: Trial, options: Sequence[str]) -> LocalTraining:
        place = self._free.pop(0)
        return LocalTraining(trial, options, place, self._shares[place], lambda: self._free.insert(0, place))

    def busy(self, trials: Iterable[Trial]) -> set[int]:
        return {trial.number for trial in trials if is_in_use(trial.folder)}

    def give_up(self, place: str) -> None:
        self._free.remove(place)
        del self._shares[place]


class LocalTraining:
    """A trial on a `share` of this machine. See `trainer.sweep.executor.Training`."""

    def __init__(
        self, trial: Trial, options: Sequence[str], place: str, share: Share, give_back: Callable[[], None]
    ) -> None:
        self.place = place
        self._give_back = give_back
        self._checkpoints = trial.folder / CHECKPOINTS
        self._is_for_good = False
        self._process = FitProcess(options, trial.folder, {**share.variables, **group_of(trial)})
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, share.cores)

    @property
    def outcome(self) -> Outcome:
        return self._process.outcome

    def events(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._process.events()
        finally:
            if self._is_for_good:
                shutil.rmtree(self._checkpoints, ignore_errors=True)
            self._give_back()

    def stop(self, *, for_good: bool = False) -> None:
        self._is_for_good = for_good
        self._process.stop()


def share_of_machine(index: int, workers: int) -> Share:
    """What one of several workers may use."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    variables = {SHARED_BY: str(workers)}
    gpus = _gpus()
    if gpus and workers > 1:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, index, workers))
        if len(gpus) < workers:  # else each takes all of the GPU's memory at its start
            variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return Share(frozenset(_part(cores, index, workers)), variables)


def _part(items: Sequence[Item], index: int, workers: int) -> Sequence[Item]:
    """The items of one worker: its own where there are enough, else one that it shares."""
    each = len(items) // workers
    return items[index * each : (index + 1) * each] if each else [items[index % len(items)]]


def _gpus() -> list[str]:
    """The names that CUDA_VISIBLE_DEVICES has for the GPUs that this process may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:  # no driver of NVIDIA's
        return []
    return listed.stdout.split() if listed.returncode == 0 else []
