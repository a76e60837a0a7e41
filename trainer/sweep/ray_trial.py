"""A trial on a node of a Ray cluster.

It is a Ray actor: unlike a Ray task, an actor can be stopped, and polled for events over a `ray://` connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import RunError
from trainer.files import delete_folder, rename_folder, untar
from trainer.sweep.executor import OTHER_RUN, Outcome, group_of
from trainer.sweep.node import NodeTrial
from trainer.sweep.search import Trial

RETRY_S = 1.0
POLL_S = 10.0
MAX_UNAVAILABLE_S = 60.0  # a node that does not answer for longer is lost


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    id: str  # Ray's, hexadecimal
    name: str  # for people
    cpus: int
    gpus: int


class Cluster(Protocol):
    """Nodes for trials, and the resources of each trial."""

    ray: Any  # the module
    nodes: list[Node]  # those that can run trials, as of now
    run_root: Path | None

    @property
    def trial_cpus(self) -> int: ...

    @property
    def trial_gpus(self) -> int: ...


class RayTrial:
    """See `trainer.sweep.executor.TrialProcess`."""

    def __init__(self, cluster: Cluster, trial: Trial, options: Sequence[str], folder: Path) -> None:
        """`folder`: the run folder on the node, relative to its root."""
        self.worker = "its node"  # until it has one
        self.outcome = Outcome(reason="stopped before it had a node")
        self._cluster = cluster
        self._ray = cluster.ray
        self._trial = trial
        self._options = options
        self._folder = folder
        self._actor: Any = None  # once it has a node
        self._is_stopping = self._is_for_good = False

    def events(self) -> Iterator[dict[str, Any]]:
        exceptions = self._ray.exceptions
        actor = None
        try:
            actor = self._find_node()
            if actor is None:
                return
            self._ray.get(actor.start.remote(*self._arguments()))
            self._actor = actor
            if self._is_stopping:
                actor.stop.remote()
            while (events := self._ask("poll", POLL_S)) is not None:
                yield from (event for event in events if event is not None)
                if None in events:
                    break
            self.outcome = self._collect()
        except exceptions.RayTaskError as error:  # an exception of our code on the node
            self.outcome = Outcome(reason=str(error).strip().splitlines()[-1])
        except exceptions.RayActorError:
            self.outcome = Outcome(reason=f"{self.worker} was lost", lost=True)
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
        """An actor on a node; None where the trial was stopped before a node had a free slot."""
        cluster = self._cluster
        while not self._is_stopping:
            nodes = cluster.nodes
            if not nodes:
                time.sleep(RETRY_S)
                continue
            actor = (
                self._ray.remote(_Actor)
                .options(
                    num_cpus=cluster.trial_cpus,
                    num_gpus=cluster.trial_gpus,
                    max_concurrency=2,  # `stop` can be called during `poll`
                    label_selector={"ray.io/node-id": f"in({','.join(node.id for node in nodes)})"},
                )
                .remote()
            )
            node_id = actor.node_id.remote()
            while not self._is_stopping and cluster.nodes == nodes:
                if self._ray.wait([node_id], timeout=RETRY_S)[0]:
                    found = self._ray.get(node_id)
                    self.worker = next(node.name for node in nodes if node.id == found)
                    return actor
            self._ray.kill(actor)  # other nodes are there now
        return None

    def _arguments(self) -> tuple[Any, ...]:
        """Arguments of `NodeTrial.start`."""
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("WANDB_") and name not in OTHER_RUN and not name.endswith("_DIR")
        }
        cluster = self._cluster
        return (self._options, self._folder, cluster.run_root, cluster.trial_cpus, variables | group_of(self._trial))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Result of a method of the actor, which may be unavailable for a while."""
        deadline = time.monotonic() + MAX_UNAVAILABLE_S
        while True:
            try:
                return self._ray.get(getattr(self._actor, method).remote(*arguments))
            except self._ray.exceptions.ActorUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)

    def _collect(self) -> Outcome:
        """The outcome; the run folder moves to this machine, unless the trial is to be continued on the node."""
        outcome: Outcome = self._ask("outcome")
        continues = outcome.result is None and self._is_stopping and not self._is_for_good
        if not continues:
            draft = self._trial.folder.with_name(f".{self._trial.folder.name}.draft")
            delete_folder(draft)  # left by a killed sweep
            untar(self._ask("files"), draft)
            rename_folder(draft, self._trial.folder)
            self._ask("delete")
        return outcome


class _Actor(NodeTrial):
    def node_id(self) -> str:
        """Ray's id of the node, hexadecimal."""
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        return node
