"""Trials on this machine: each worker has its part of the cores, the memory and the GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from trainer.machine import SHARED_BY
from trainer.runs.run_folder import CHECKPOINTS, is_in_use
from trainer.sweep.executor import Outcome, TrialProgram, group_of
from trainer.sweep.search import Trial

Item = TypeVar("Item")


@dataclass(frozen=True)
class WorkerResources:
    """Part of this machine for one worker."""

    cores: frozenset[int]
    variables: Mapping[str, str]  # environment variables that limit the GPUs and the memory


class LocalExecutor:
    """`workers` trials at once. See `trainer.sweep.executor.Executor`."""

    keeps_folders = True

    def __init__(self, workers: int) -> None:
        self._workers = {f"worker {index}": worker_resources(index, workers) for index in range(workers)}
        self._free = list(self._workers)

    def slots(self) -> int:
        return len(self._workers)

    def start(self, trial: Trial, options: Sequence[str]) -> LocalTrial:
        worker = self._free.pop(0)
        return LocalTrial(trial, options, worker, self._workers[worker], lambda: self._free.insert(0, worker))

    def still_running(self, trials: Iterable[Trial]) -> set[int]:
        return {trial.number for trial in trials if is_in_use(trial.folder)}

    def exclude(self, worker: str) -> None:
        self._free.remove(worker)
        del self._workers[worker]


class LocalTrial:
    """A trial on a worker of this machine. See `trainer.sweep.executor.TrialProcess`."""

    def __init__(
        self, trial: Trial, options: Sequence[str], worker: str, resources: WorkerResources, release: Callable[[], None]
    ) -> None:
        self.worker = worker
        self._release = release
        self._checkpoints = trial.folder / CHECKPOINTS
        self._is_for_good = False
        self._process = TrialProgram(options, trial.folder, {**resources.variables, **group_of(trial)})
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, resources.cores)

    @property
    def outcome(self) -> Outcome:
        return self._process.outcome

    def events(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._process.events()
        finally:
            if self._is_for_good:
                shutil.rmtree(self._checkpoints, ignore_errors=True)
            self._release()

    def stop(self, *, for_good: bool = False) -> None:
        self._is_for_good = for_good
        self._process.stop()


def worker_resources(index: int, workers: int) -> WorkerResources:
    """Resources of the worker `index` of `workers`."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    variables = {SHARED_BY: str(workers)}
    gpus = _gpus()
    if gpus and workers > 1:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, index, workers))
        if len(gpus) < workers:  # a process takes all memory of its GPU otherwise
            variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return WorkerResources(frozenset(_part(cores, index, workers)), variables)


def _part(items: Sequence[Item], index: int, workers: int) -> Sequence[Item]:
    """The items of one worker: its own where there are enough, else one that several workers share."""
    each = len(items) // workers
    return items[index * each : (index + 1) * each] if each else [items[index % len(items)]]


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:  # no NVIDIA driver
        return []
    return listed.stdout.split() if listed.returncode == 0 else []
