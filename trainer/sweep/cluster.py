"""Trials on the nodes of a Ray cluster. Ray finds room for them, and tells of nodes that come and go.

A trial is an actor: unlike a task it can be asked to stop, and its epochs be taken over a `ray://` connection as well.
Node ids are Ray's, hexadecimal.
"""

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
from trainer.errors import InputError, RunError
from trainer.files import untar
from trainer.runs.run_folder import is_in_use
from trainer.sweep.executor import OTHER_RUN, Outcome, group_of
from trainer.sweep.node import NodeTrial, busy, needs_of, prepare
from trainer.sweep.search import Search, Trial

log = logging.getLogger("trainer")

NOISE = "ray.log"  # what Ray prints on its own
USUAL_CPUS = 2
LOOK_S = 2.0  # between two looks at the nodes
FIRST_LOOK_S = 120.0  # a node may have to start TensorFlow to read its data
WAIT_S = 1.0
CONNECT_S = 10.0
POLL_S = 10.0
PATIENCE_S = 60.0  # a node that does not answer for so long is lost


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that trials run on."""

    address: str  # auto | HOST:PORT | ray://HOST:PORT
    trial_cpus: int | None = None  # None: two, or what the smallest node has
    trial_gpus: int | None = None  # None: one, where there are GPUs
    run_root: Path | None = None  # where the nodes keep the run folders; None: in each one's cache


@contextmanager
def connected(
    cluster: Cluster, search: Search, sources: Sequence[Source], workers: int | None
) -> Iterator[RayExecutor]:
    """Run trials on a cluster while it lasts; `workers` None: as many at once as there is room for.

    Raises InputError where no cluster answers, or none of its nodes can run the trials.
    """
    ray = _import()
    with (search.folder / NOISE).open("a") as noise, redirect_stdout(noise):
        _connect(ray, cluster.address)
        try:
            executor = RayExecutor(ray, cluster, search, sources, workers)
            executor.wait_for_nodes()
            yield executor
        finally:
            ray.shutdown()


def _import() -> Any:
    # Nothing is to be told to anybody, and nothing of what a coming version will do.
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
        if host:  # Ray itself would try for ever
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # of many types, by address
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({first}); `ray start --head` starts one, and "
            "`ray start --address=HOST:6379` adds this machine to one"
        ) from error


@dataclass(frozen=True)
class Node:
    """A node that can run trials."""

    id: str
    name: str  # for people
    cpus: int
    gpus: int


class RayExecutor:
    """See `trainer.sweep.executor.Executor`."""

    keeps_folders = False

    def __init__(
        self, ray: Any, cluster: Cluster, search: Search, sources: Sequence[Source], workers: int | None
    ) -> None:
        self.ray = ray
        self.run_root = cluster.run_root.absolute() if cluster.run_root else None
        self.nodes: list[Node] = []  # that can run trials
        self._cluster = cluster
        self._workers = workers
        self._folder = Path(search.spec.name)  # of the sweep, within the root of a node; never the driver's own
        self._given = dict(zip(search.spec.given("dataset"), (one.spec for one in sources), strict=True))
        folders = search.spec.given("data_dir")
        self._data_dir = Path(folders[0]).absolute() if folders else None
        self._needs = needs_of(sources, self._data_dir)
        self._entries = ray.put({one.spec: pack(one) for one in sources})
        self._looks: dict[str, Any] = {}  # by node: a reference to what it lacks
        self._fit: dict[str, bool] = {}  # by node that has answered
        self._lacks: list[str] = []  # as they were told
        self._looked = -LOOK_S

    def wait_for_nodes(self) -> None:
        """Have every node looked at that is there. Raises InputError where none can run trials."""
        self._look()
        if asked := list(self._looks.values()):
            self.ray.wait(asked, num_returns=len(asked), timeout=FIRST_LOOK_S)
        self._looked = -LOOK_S
        room = self.room()
        if not self.nodes:
            raise InputError(self._lacks[0] if self._lacks else f"--cluster {self._cluster.address}: no node has a CPU")
        if not room:
            raise InputError(
                f"--cluster: no node has the {self.trial_cpus} CPUs and {self.trial_gpus} GPUs that a trial is given"
            )
        log.info("nodes: %d, trials at once: %d, CPUs of each: %d", len(self.nodes), room, self.trial_cpus)

    def room(self) -> int:
        self._look()
        places = 0
        for node in self.nodes:
            by_gpus = node.gpus // self.trial_gpus if self.trial_gpus else node.cpus
            places += min(node.cpus // self.trial_cpus, by_gpus)
        return places if self._workers is None else min(places, self._workers)

    @property
    def trial_cpus(self) -> int:
        return self._cluster.trial_cpus or min([USUAL_CPUS, *(node.cpus for node in self.nodes)])

    @property
    def trial_gpus(self) -> int:
        asked = self._cluster.trial_gpus
        return int(any(node.gpus for node in self.nodes)) if asked is None else asked

    def start(self, trial: Trial, options: Sequence[str]) -> RayTraining:
        # The nodes know nothing of the folder that the sweep was started in.
        given = trial.point.get("dataset", next(iter(self._given), None))
        places = [f"--dataset={self._given[str(given)]}"] if given is not None else []
        if self._data_dir:
            places.append(f"--data-dir={self._data_dir}")
        return RayTraining(self, trial, [*options, *places], self._folder / trial.folder.name)

    def busy(self, trials: Iterable[Trial]) -> set[int]:
        left = list(trials)
        numbers = {trial.number for trial in left if is_in_use(trial.folder)}
        if not left:
            return numbers
        folders = [self._folder / trial.folder.name for trial in left]
        asked = [self._on(node, busy).remote(folders, self.run_root) for node in self.nodes]
        ready, _ = self.ray.wait(asked, num_returns=len(asked), timeout=FIRST_LOOK_S)
        for answer in ready:
            try:
                found = self.ray.get(answer)
            except self.ray.exceptions.RayError:  # the node has gone, and its trainings with it
                continue
            numbers |= {trial.number for trial, is_busy in zip(left, found, strict=True) if is_busy}
        return numbers

    def give_up(self, place: str) -> None:
        self._fit |= {node.id: False for node in self.nodes if node.name == place}
        self.nodes = [node for node in self.nodes if node.name != place]

    def _look(self) -> None:
        """Ask new nodes what they lack, and note which can run trials."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        alive = [_node(one) for one in self.ray.nodes() if one["Alive"]]
        for node in alive:
            if node.cpus and node.id not in self._looks:
                self._looks[node.id] = self._on(node, prepare).remote(self._needs, self._entries)
        asked = {self._looks[node.id]: node for node in alive if node.id in self._looks and node.id not in self._fit}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for node in (asked[reference] for reference in ready):
            self._fit[node.id] = self._is_fit(node)
        self.nodes = [node for node in alive if self._fit.get(node.id)]

    def _is_fit(self, node: Node) -> bool:
        try:
            lack = self.ray.get(self._looks[node.id])
        except self.ray.exceptions.RayError as error:  # it cannot even be asked
            lack = f"cannot run trials: {str(error).strip().splitlines()[-1]}"
        if lack:
            self._lacks.append(f"{node.name}: {lack}")
            log.warning("%s; it gets no trials", self._lacks[-1])
        return not lack

    def _on(self, node: Node, function: Callable[..., Any]) -> Any:
        """A remote function that runs on this node, whatever else does."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return self.ray.remote(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        )(function)


class RayTraining:
    """See `trainer.sweep.executor.Training`."""

    def __init__(self, executor: RayExecutor, trial: Trial, options: Sequence[str], folder: Path) -> None:
        self.place = "its node"  # until it has one
        self.outcome = Outcome(reason="stopped before it had a node")
        self._executor = executor
        self._ray = executor.ray
        self._trial = trial
        self._options = options
        self._folder = folder  # on the node, within its root
        self._actor: Any = None  # once it has a node
        self._is_stopping = self._is_for_good = False

    def events(self) -> Iterator[dict[str, Any]]:
        exceptions = self._ray.exceptions
        actor = None
        try:
            actor = self._find_node()
            if actor is None:
                return
            self._ray.get(actor.start.remote(*self._order()))
            self._actor = actor
            if self._is_stopping:
                actor.stop.remote()
            while (told := self._ask("poll", POLL_S)) is not None:
                yield from (event for event in told if event is not None)
                if None in told:
                    break
            self.outcome = self._bring_home()
        except exceptions.RayTaskError as error:  # an error of ours, over there
            self.outcome = Outcome(reason=str(error).strip().splitlines()[-1])
        except exceptions.RayActorError:
            self.outcome = Outcome(reason=f"{self.place} was lost", lost=True)
        except ConnectionError as error:
            raise RunError("--cluster: the connection to the cluster is lost; the same command goes on") from error
        finally:
            if actor is not None:
                self._ray.kill(actor)

    def stop(self, *, for_good: bool = False) -> None:
        self._is_stopping, self._is_for_good = True, for_good
        if self._actor is not None:
            self._actor.stop.remote()

    def _find_node(self) -> Any:
        """An actor on a node; None where it was stopped before there was room."""
        executor = self._executor
        while not self._is_stopping:
            nodes = executor.nodes
            if not nodes:
                time.sleep(WAIT_S)
                continue
            actor = (
                self._ray.remote(_Actor)
                .options(
                    num_cpus=executor.trial_cpus,
                    num_gpus=executor.trial_gpus,
                    max_concurrency=2,  # `stop` during `poll`
                    label_selector={"ray.io/node-id": f"in({','.join(node.id for node in nodes)})"},
                )
                .remote()
            )
            where = actor.node_id.remote()
            while not self._is_stopping and executor.nodes == nodes:
                if self._ray.wait([where], timeout=WAIT_S)[0]:
                    found = self._ray.get(where)
                    self.place = next(node.name for node in nodes if node.id == found)
                    return actor
            self._ray.kill(actor)  # the nodes are others now
        return None

    def _order(self) -> tuple[Any, ...]:
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("WANDB_") and name not in OTHER_RUN and not name.endswith("_DIR")
        }
        executor = self._executor
        return (self._options, self._folder, executor.run_root, executor.trial_cpus, variables | group_of(self._trial))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """What the actor answers, which may be out of reach for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._ray.get(getattr(self._actor, method).remote(*arguments))
            except self._ray.exceptions.ActorUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(WAIT_S)

    def _bring_home(self) -> Outcome:
        outcome: Outcome = self._ask("outcome")
        is_to_go_on = outcome.result is None and self._is_stopping and not self._is_for_good
        if not is_to_go_on:
            untar(self._ask("files"), self._trial.folder)
            self._ask("delete")
        return outcome


class _Actor(NodeTrial):
    def node_id(self) -> str:
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        return node


def _node(entry: Mapping[str, Any]) -> Node:
    resources = entry["Resources"]
    name = f"node {entry['NodeManagerAddress']} ({entry['NodeID'][:6]})"
    return Node(entry["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
