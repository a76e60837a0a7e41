"""A node of a cluster: its requirements for the trials of a sweep, and a trial that runs on it. Independent of Ray."""

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
from trainer.data.cache.transfer import PackedEntry, unpack
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.errors import InputError
from trainer.files import tar_folder
from trainer.machine import CPUS, SHARED_BY
from trainer.runs.run_folder import CHECKPOINTS, LOCK, is_in_use
from trainer.sweep.executor import Outcome, TrialProgram

MAX_WAIT_S = 120.0  # for the process of a lost node to end


@dataclass(frozen=True)
class RequiredData:
    """A data set that a node must have, at the same path."""

    spec: str
    data_dir: Path | None
    images: int
    contents: str  # digest of the class names, and of the names and sizes of files


@dataclass(frozen=True)
class Requirements:
    """Versions and data sets that all nodes must have in common, so that their trials can be compared."""

    versions: Mapping[str, str]
    data: tuple[RequiredData, ...]


def requirements_of(sources: Iterable[Source], data_dir: Path | None) -> Requirements:
    """Versions and data sets of this machine."""
    data = (RequiredData(source.spec, data_dir, len(source), _contents(source)) for source in sources)
    return Requirements(_versions(), tuple(data))


def prepare(required: Requirements, entries: Mapping[str, Sequence[PackedEntry]]) -> str:
    """Check this node, and put `entries` (by data set) into its cache; return the first unmet requirement, or ""."""
    for package, expected in required.versions.items():
        found = _versions()[package]
        if found != expected:
            return f"has {package} {found}, and the sweep runs with {expected}"
    for need in required.data:
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
    """Folder of the trials' run folders on a node."""
    return run_root or cache_dir() / "sweeps"


def are_in_use(folders: Iterable[Path], run_root: Path | None) -> list[bool]:
    """Whether a process trains in each of the run folders, which are relative to the root."""
    return [is_in_use(root_of(run_root) / folder) for folder in folders]


class NodeTrial:
    """A trial on this node: its program in a process of its own. The driver calls the methods remotely."""

    def start(
        self, options: Sequence[str], folder: Path, run_root: Path | None, cpus: int, variables: Mapping[str, str]
    ) -> None:
        """Start the trial in `folder` (relative to the root) on `cpus`; `variables` are added to its environment."""
        self._folder = root_of(run_root) / folder
        # Under a root that all nodes share, the process of a lost node may live a little longer than its node.
        deadline = time.monotonic() + MAX_WAIT_S
        while is_in_use(self._folder) and time.monotonic() < deadline:
            time.sleep(0.5)
        threads = {CPUS: cpus, "TF_NUM_INTRAOP_THREADS": cpus, SHARED_BY: max(1, (os.cpu_count() or 1) // cpus)}
        self._process = TrialProgram(
            options, self._folder, {name: str(value) for name, value in threads.items()} | dict(variables)
        )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def poll(self, seconds: float) -> list[dict[str, Any] | None]:
        """The new events, after `seconds` at most; None after the last one."""
        events = []
        try:
            events.append(self._events.get(timeout=seconds))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def stop(self) -> None:
        """Ask the process to write a checkpoint and end."""
        self._process.stop()

    def outcome(self) -> Outcome:
        """Outcome of the process, which has ended."""
        return self._process.outcome

    def files(self) -> bytes:
        """The run folder as a tar, without its checkpoints and without links, which W&B makes to its logs."""
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
    """Versions of the packages that affect the result; our own has a digest of its source files."""
    digest = hashlib.sha256()
    package = Path(trainer.__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return {"trainer": f"{version('trainer')} ({digest.hexdigest()[:8]})", "tensorflow": version("tensorflow")}


def _contents(source: Source) -> str:
    digest = hashlib.sha256("\0".join(source.class_names).encode())
    for example in source.examples():
        if not isinstance(example.data, str):  # no file: each would have to be read
            break
        digest.update(f"\0{example.split}\0{example.name}\0{example.size_bytes}".encode())
    return digest.hexdigest()
