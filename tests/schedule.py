"""The order of the tests and their turns, where several processes (pytest-xdist) run them.

A file, or a folder whose files share an expensive fixture, is run by one process; the longest come first, so that no
process is left with a long one at the end.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Files and folders below `tests` that take longer than half a minute, the longest first.
LONGEST = (
    "test_container.py",
    "test_docs.py",
    "test_real_mnist.py",
    "sweep/test_sweep.py",
    "cli/test_option_effects.py",
    "test_real_photos.py",
    "sweep/test_cluster.py",
    "sweep/test_wandb.py",
    "serving/test_swap.py",
    "serving/test_service_stress.py",
    "serving/test_soak.py",
    "serving/test_hostile_input.py",
    "cli/test_training_commands.py",
    "features/test_warm_start.py",
    "cli/test_resuming.py",
    "faults",
    "sweep/test_trial.py",
    "training/test_loop.py",
    "serving/test_lifecycle.py",
    "export/test_export.py",
)
TOGETHER = ("data_checks", "faults")  # folders that share what is expensive to start


def unit_of(nodeid: str) -> str:
    """The file or folder below `tests` whose tests one process runs."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    folder = file.partition("/")[0]
    return folder if folder in TOGETHER else file


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests; those of a file keep their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(unit_of(item.nodeid), len(place)))


class Scheduler(LoadScopeScheduling):
    """Scheduler that gives each process a unit at a time, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@contextmanager
def turn(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    """The turn of a test, beside those of other processes or, with `alone`, once theirs have ended."""
    if not hasattr(config, "workerinput"):
        yield
        return
    folder = Path(config.getoption("basetemp")).parent
    with (folder / "queue.lock").open("a+") as queue, (folder / "running.lock").open("a+") as running:
        # Whoever waits here keeps those that come later from going first. These locks are not inherited by a fork.
        fcntl.lockf(queue, fcntl.LOCK_EX)
        fcntl.lockf(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.lockf(queue, fcntl.LOCK_UN)
        yield
