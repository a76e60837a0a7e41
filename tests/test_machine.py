from __future__ import annotations

import os
from pathlib import Path

import pytest
from cgroup_tree import make_cgroups

from trainer.machine import available_cpus, limit_tensorflow_threads, memory_budget, memory_limit


def test_available_cpus_is_at_most_the_affinity() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "390000 100000"}, 3),
        ({"cpu.max": "max 100000"}, 8),
        ({"pids.max": "50"}, 6),
        ({"pids.max": "4", "cpu.max": "390000 100000"}, 1),
    ],
)
def test_available_cpus_obeys_the_limits_of_the_cgroup(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    make_cgroups(tmp_path, monkeypatch, "0::/\n", {f"cgroup/{name}": text for name, text in files.items()})
    assert available_cpus() == expected


def test_memory_is_at_most_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINER_SHARED_BY", raising=False)
    make_cgroups(tmp_path, monkeypatch, "0::/\n", {"cgroup/memory.max": str(1 << 60)})
    machine = memory_limit()
    assert 1 << 28 < machine < 1 << 50
    (tmp_path / "cgroup/memory.max").write_text(str(1 << 28))
    assert memory_limit() == 1 << 28
    assert memory_budget() == 1 << 26
    monkeypatch.setenv("TRAINER_SHARED_BY", "2")
    assert memory_budget() == 1 << 25


def test_tensorflow_gets_a_thread_for_each_cpu_of_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    make_cgroups(tmp_path, monkeypatch, "0::/\n", {"cgroup/cpu.max": "200000 100000"})
    monkeypatch.setattr(os, "environ", {"TF_NUM_INTEROP_THREADS": "5"})
    limit_tensorflow_threads()
    assert os.environ == {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "5"}  # a user's own stays
