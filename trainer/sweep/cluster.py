"""Executor of trials on the nodes of a Ray cluster, which may come and go. Ray chooses the node of a trial."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.cache.transfer import pack
from trainer.data.sources.base import Source
from trainer.errors import InputError
from trainer.runs.run_folder import is_in_use
from trainer.sweep.node import are_in_use, prepare, requirements_of
from trainer.sweep.ray_trial import Node, RayTrial
from trainer.sweep.search import Search, Trial

log = logging.getLogger("trainer")

RAY_LOG = "ray.log"  # Ray's output on stdout
DEFAULT_TRIAL_CPUS = 2
UPDATE_S = 2.0  # between two requests for the nodes of the cluster
MAX_ANSWER_S = 120.0  # a node may have to start TensorFlow to read its data
MAX_CONNECT_S = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """The options of `trainer sweep` for a Ray cluster."""

    address: str  # auto | HOST:PORT | ray://HOST:PORT
    trial_cpus: int | None = None  # None: two, or the CPUs of the smallest node
    trial_gpus: int | None = None  # None: one where a node has GPUs
    run_root: Path | None = None  # the run folders' place on the nodes; None: the cache of each node


@contextmanager
def connect(
    cluster: ClusterOptions, search: Search, sources: Sequence[Source], workers: int | None
) -> Iterator[RayExecutor]:
    """Executor on a cluster, for the length of the context; `workers` None: all slots of its nodes.

    Raises InputError where no cluster answers, or none of its nodes can run the trials.
    """
    ray = _import()
    with (search.folder / RAY_LOG).open("a") as ray_log, redirect_stdout(ray_log):
        _connect(ray, cluster.address)
        try:
            executor = RayExecutor(ray, cluster, search, sources, workers)
            executor.wait_for_nodes()
            yield executor
        finally:
            ray.shutdown()


def _import() -> Any:
    # No usage statistics, and no warning of changes in coming versions.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "--cluster: Ray is not installed; `pip install --require-hashes --no-deps -r requirements-cluster.lock` "
            "installs it"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # Ray itself tries for ever
            socket.create_connection((host, int(port)), timeout=MAX_CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # of many types, depending on the address
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({first}); `ray start --head` starts one, and "
            "`ray start --address=HOST:6379` adds this machine to one"
        ) from error


class RayExecutor:
    """See `trainer.sweep.executor.Executor`."""

    keeps_folders = False

    def __init__(
        self, ray: Any, cluster: ClusterOptions, search: Search, sources: Sequence[Source], workers: int | None
    ) -> None:
        self.ray = ray
        self.run_root = cluster.run_root.absolute() if cluster.run_root else None
        self.nodes: list[Node] = []  # those that can run trials
        self._options = cluster
        self._workers = workers
        self._folder = Path(search.spec.name)  # of the sweep, relative to the root of a node
        self._canonical = dict(zip(search.spec.datasets, (source.spec for source in sources), strict=True))
        self._data_dir = search.spec.data_dir.absolute() if search.spec.data_dir else None
        self._required = requirements_of(sources, self._data_dir)
        self._entries = ray.put({source.spec: pack(source) for source in sources})
        self._checks: dict[str, Any] = {}  # node → reference to the result of `prepare`
        self._can_run: dict[str, bool] = {}  # node that has answered → whether it can run trials
        self._problems: list[str] = []  # of nodes that cannot
        self._updated = -UPDATE_S

    def wait_for_nodes(self) -> None:
        """Check all nodes that are there. Raises InputError where none can run trials."""
        self._update_nodes()
        if checks := list(self._checks.values()):
            self.ray.wait(checks, num_returns=len(checks), timeout=MAX_ANSWER_S)
        self._updated = -UPDATE_S
        slots = self.slots()
        if not self.nodes:
            problem = next(iter(self._problems), f"--cluster {self._options.address}: no node has a CPU")
            raise InputError(problem)
        if not slots:
            raise InputError(
                f"--cluster: no node has the {self.trial_cpus} CPUs and {self.trial_gpus} GPUs that a trial is given"
            )
        log.info("nodes: %d, trials at once: %d, CPUs of each: %d", len(self.nodes), slots, self.trial_cpus)

    def slots(self) -> int:
        self._update_nodes()
        slots = 0
        for node in self.nodes:
            by_gpus = node.gpus // self.trial_gpus if self.trial_gpus else node.cpus
            slots += min(node.cpus // self.trial_cpus, by_gpus)
        return slots if self._workers is None else min(slots, self._workers)

    @property
    def trial_cpus(self) -> int:
        return self._options.trial_cpus or min([DEFAULT_TRIAL_CPUS, *(node.cpus for node in self.nodes)])

    @property
    def trial_gpus(self) -> int:
        asked = self._options.trial_gpus
        return int(any(node.gpus for node in self.nodes)) if asked is None else asked

    def start(self, trial: Trial, options: Sequence[str]) -> RayTrial:
        # A relative path means nothing on a node: the canonical spec is absolute.
        absolute = self._canonical | {
            f"--dataset={given}": f"--dataset={spec}" for given, spec in self._canonical.items()
        }
        options = [absolute.get(word, word) for word in options]
        if self._data_dir:
            options.append(f"--data-dir={self._data_dir}")
        return RayTrial(self, trial, options, self._folder / trial.folder.name)

    def still_running(self, trials: Iterable[Trial]) -> set[int]:
        trials = list(trials)
        numbers = {trial.number for trial in trials if is_in_use(trial.folder)}
        if not trials:
            return numbers
        folders = [self._folder / trial.folder.name for trial in trials]
        asked = [self._on(node, are_in_use).remote(folders, self.run_root) for node in self.nodes]
        ready, _ = self.ray.wait(asked, num_returns=len(asked), timeout=MAX_ANSWER_S)
        for answer in ready:
            try:
                in_use = self.ray.get(answer)
            except self.ray.exceptions.RayError:  # the node has gone, and its trials with it
                continue
            numbers |= {trial.number for trial, used in zip(trials, in_use, strict=True) if used}
        return numbers

    def exclude(self, worker: str) -> None:
        self._can_run |= {node.id: False for node in self.nodes if node.name == worker}
        self.nodes = [node for node in self.nodes if node.name != worker]

    def _update_nodes(self) -> None:
        """Start the check of new nodes, and note which nodes can run trials."""
        if time.monotonic() - self._updated < UPDATE_S:
            return
        self._updated = time.monotonic()
        alive = [_node(entry) for entry in self.ray.nodes() if entry["Alive"]]
        for node in alive:
            if node.cpus and node.id not in self._checks:
                self._checks[node.id] = self._on(node, prepare).remote(self._required, self._entries)
        open_checks = {
            self._checks[node.id]: node for node in alive if node.id in self._checks and node.id not in self._can_run
        }
        references = list(open_checks)
        ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        for node in (open_checks[reference] for reference in ready):
            self._can_run[node.id] = self._passes(node)
        self.nodes = [node for node in alive if self._can_run.get(node.id)]

    def _passes(self, node: Node) -> bool:
        """Result of a node's check, logged where it is negative."""
        try:
            problem = self.ray.get(self._checks[node.id])
        except self.ray.exceptions.RayError as error:  # the check itself cannot run there
            problem = f"cannot run trials: {str(error).strip().splitlines()[-1]}"
        if problem:
            self._problems.append(f"{node.name}: {problem}")
            log.warning("%s; it gets no trials", self._problems[-1])
        return not problem

    def _on(self, node: Node, function: Callable[..., Any]) -> Any:
        """The function as a Ray task on this node, whether or not its CPUs are in use."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return self.ray.remote(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        )(function)


def _node(entry: Mapping[str, Any]) -> Node:
    resources = entry["Resources"]
    name = f"node {entry['NodeManagerAddress']} ({entry['NodeID'][:6]})"
    return Node(entry["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
