from __future__ import annotations

import os
from pathlib import Path

import pytest
from cgroup_tree import make_cgroups

from trainer.machine import available_cpus, memory_budget
from trainer.sweep.local import worker_resources

OWN = ["GPU-aa", "GPU-bb", "GPU-cc", "GPU-dd"]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7, 9})


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, [({3, 5, 7, 9}, None, None)]),
        (2, [({3, 5}, "GPU-aa,GPU-bb", None), ({7, 9}, "GPU-cc,GPU-dd", None)]),
        (5, [({one}, gpu, "true") for one, gpu in zip((3, 5, 7, 9, 3), (*OWN, "GPU-aa"), strict=True)]),
    ],
)
def test_each_worker_has_its_part_of_the_cores_and_gpus(
    workers: int,
    expected: list[tuple[set[int], str | None, str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' {' '.join(OWN)}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    resources = [worker_resources(index, workers) for index in range(workers)]
    assert [
        (set(one.cores), one.variables.get("CUDA_VISIBLE_DEVICES"), one.variables.get("TF_FORCE_GPU_ALLOW_GROWTH"))
        for one in resources
    ] == expected


@pytest.mark.usefixtures("cores")
def test_the_workers_share_the_gpus_that_this_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [worker_resources(index, 2).variables["CUDA_VISIBLE_DEVICES"] for index in range(2)] == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in worker_resources(0, 2).variables


def test_a_worker_plans_with_its_part_of_memory_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cgroups(tmp_path, monkeypatch, "0::/\n", {"cgroup/cpu.max": "200000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    alone = memory_budget()
    assert available_cpus() == 2
    for name, value in worker_resources(1, 2).variables.items():
        monkeypatch.setenv(name, value)
    assert available_cpus() == 1
    assert memory_budget() == alone // 2
