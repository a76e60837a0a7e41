"""A node of a cluster: whether it can run a sweep's trials, and a trial there. Nothing here knows what carries it."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trainer
from trainer.data.cache.entries import cache_dir
from trainer.data.cache.transfer import Entry, unpack
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.errors import InputError
from trainer.files import tar_folder
from trainer.machine import CPUS, SHARED_BY
from trainer.runs.run_folder import CHECKPOINTS, LOCK, is_in_use
from trainer.sweep.executor import FitProcess, Outcome

PATIENCE_S = 120.0


@dataclass(frozen=True)
class DataNeed:
    """A data set that a node must have, at the same place."""

    spec: str
    data_dir: Path | None
    images: int
    contents: str  # a digest of the class names, and of the files' names and sizes where they are files


@dataclass(frozen=True)
class Needs:
    """What a node must have, so that its trials are like those of any other."""

    versions: Mapping[str, str]
    data: tuple[DataNeed, ...]


def needs_of(sources: Iterable[Source], data_dir: Path | None) -> Needs:
    """What this machine has."""
    return Needs(_versions(), tuple(DataNeed(one.spec, data_dir, len(one), _contents(one)) for one in sources))


def prepare(needs: Needs, entries: Mapping[str, Sequence[Entry]]) -> str:
    """What this node lacks, in a line; empty where it lacks nothing, and then its cache has `entries`, by data set."""
    for package, expected in needs.versions.items():
        found = _versions()[package]
        if found != expected:
            return f"has {package} {found}, and the sweep runs with {expected}"
    for need in needs.data:
        try:
            source = open_source(need.spec, need.data_dir)
        except InputError as error:
            return str(error).removeprefix("--dataset: ")
        if len(source) != need.images:
            return f"has {len(source)} images of {need.spec}, and the sweep's has {need.images}"
        if _contents(source) != need.contents:
            return f"has other images or classes in {need.spec}"
        unpack(source, entries.get(need.spec, ()))
    return ""


def root_of(run_root: Path | None) -> Path:
    """Where the run folders of trials lie on a node."""
    return run_root or cache_dir() / "sweeps"


def busy(folders: Iterable[Path], run_root: Path | None) -> list[bool]:
    """Whether trainings are under way in these, which are given as within the root."""
    return [is_in_use(root_of(run_root) / folder) for folder in folders]


class NodeTrial:
    """A trial on this node: `trainer fit` in a process of its own. The methods are called from elsewhere."""

    def start(
        self, options: Sequence[str], folder: Path, run_root: Path | None, cpus: int, variables: Mapping[str, str]
    ) -> None:
        """Run it in `folder` within the root, with so many `cpus`; `variables` are added to its environment."""
        self._folder = root_of(run_root) / folder
        # Where all nodes reach the root: the lost one's training may live a little longer than its node.
        deadline = time.monotonic() + PATIENCE_S
        while is_in_use(self._folder) and time.monotonic() < deadline:
            time.sleep(0.5)
        threads = {CPUS: cpus, "TF_NUM_INTRAOP_THREADS": cpus, SHARED_BY: max(1, (os.cpu_count() or 1) // cpus)}
        self._process = FitProcess(
            options, self._folder, {name: str(value) for name, value in threads.items()} | dict(variables)
        )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def poll(self, seconds: float) -> list[dict[str, Any] | None]:
        """The epochs that have ended since, after `seconds` at most; None at the end of the training."""
        told = []
        try:
            told.append(self._events.get(timeout=seconds))
            while True:
                told.append(self._events.get_nowait())
        except queue.Empty:
            return told

    def stop(self) -> None:
        """Have it write a checkpoint and end."""
        self._process.stop()

    def outcome(self) -> Outcome:
        """Once it has ended."""
        return self._process.outcome

    def files(self) -> bytes:
        """The run folder without its checkpoints: a tar. W&B's links to its own log are left out."""
        return tar_folder(self._folder, (CHECKPOINTS, LOCK))

    def delete(self) -> None:
        """Delete the run folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _follow(self) -> None:
        try:
            for event in self._process.events():
                self._events.put(event)
        finally:
            self._events.put(None)


@cache
def _versions() -> dict[str, str]:
    """Of what decides the result of a trial; our own code is told by what is in its files."""
    digest = hashlib.sha256()
    package = Path(trainer.__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return {"trainer": f"{version('trainer')} ({digest.hexdigest()[:8]})", "tensorflow": version("tensorflow")}


def _contents(source: Source) -> str:
    digest = hashlib.sha256("\0".join(source.class_names).encode())
    for example in source.examples():
        if not isinstance(example.data, str):  # each would have to be read
            break
        digest.update(f"\0{example.split}\0{example.name}\0{example.size_bytes}".encode())
    return digest.hexdigest()
