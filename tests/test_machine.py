from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainer import machine
from trainer.machine import available_cpus, cgroup_cpus


def test_available_cpus_is_at_most_the_affinity() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)])
def test_available_cpus_obeys_the_quota(
    quota: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    assert available_cpus() == (expected or len(os.sched_getaffinity(0)))


def test_version_2_takes_the_tightest_quota_on_the_way_up(tmp_path: Path) -> None:
    leaf = tmp_path / "a" / "b"
    leaf.mkdir(parents=True)
    (leaf / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("250000 100000\n")
    assert cgroup_cpus("0::/a/b\n", tmp_path) == 2.5
    assert cgroup_cpus("0::/\n", tmp_path) == float("inf")


def test_version_1(tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "docker" / "id"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    membership = "5:memory:/docker/id\n4:cpu,cpuacct:/docker/id\n0::/\n"
    assert cgroup_cpus(membership, tmp_path) == 1.5
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cpus(membership, tmp_path) == float("inf")


def test_inside_a_container_the_hosts_path_is_not_mounted(tmp_path: Path) -> None:
    """Version 1 without a cgroup namespace: /proc names the host's path, the mount is the container's own."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cpus("4:cpu,cpuacct:/docker/host-id\n", tmp_path) == 2
