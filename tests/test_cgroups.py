from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cgroup_tree import VERSION_2, make_cgroups
from PIL import Image
from server import BENTOML, serving

from trainer import cgroups

MIB = 1 << 20
UNLIMITED_V1 = "9223372036854771712"


def _limits() -> tuple[float, float, float]:
    return cgroups.cpu_limit(), cgroups.memory_limit() / MIB, cgroups.process_limit()


NESTED = {
    "cgroup/slurm/job/step/cpu.max": "max 100000",
    "cgroup/slurm/job/step/memory.max": "max",
    "cgroup/slurm/job/step/pids.max": "max",
    "cgroup/slurm/job/cpu.max": "250000 100000",
    "cgroup/slurm/job/memory.max": str(512 * MIB),
    "cgroup/slurm/job/pids.max": "300",
    "cgroup/slurm/memory.max": str(2048 * MIB),
    "cgroup/slurm/pids.max": "200",
    "cgroup/other/memory.max": str(MIB),
}


def test_version_2_takes_the_smallest_limit_on_the_way_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cgroups(tmp_path, monkeypatch, "0::/slurm/job/step\n", NESTED)
    assert _limits() == (2.5, 512, 200)


def test_version_2_with_memory_high(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"cgroup/app.slice/memory.max": str(900 * MIB), "cgroup/app.slice/memory.high": str(700 * MIB)}
    make_cgroups(tmp_path, monkeypatch, "0::/app.slice/app.service\n", files)  # a group of its own without files
    assert cgroups.memory_limit() == 700 * MIB


def test_private_cgroup_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of version 2: its own group looks like the root, and has limits."""
    files = {"cgroup/memory.max": str(512 * MIB), "cgroup/cpu.max": "150000 100000", "cgroup/pids.max": "100"}
    make_cgroups(tmp_path, monkeypatch, "0::/\n", files)
    assert _limits() == (1.5, 512, 100)


@pytest.mark.parametrize("membership", ["0::/../sibling\n", "0::/elsewhere\n", "0::/docker/id (deleted)\n"])
def test_group_outside_of_the_mounted_part(membership: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"cgroup/memory.max": str(512 * MIB), "sibling/memory.max": str(MIB)}
    make_cgroups(tmp_path, monkeypatch, membership, files)
    assert cgroups.memory_limit() == 512 * MIB


V1_FILES = {
    "cpu,cpuacct/docker/id/cpu.cfs_quota_us": "150000",
    "cpu,cpuacct/docker/id/cpu.cfs_period_us": "100000",
    "cpu,cpuacct/cpu.cfs_quota_us": "-1",
    "cpu,cpuacct/cpu.cfs_period_us": "100000",
    "memory/docker/id/memory.limit_in_bytes": UNLIMITED_V1,
    "memory/docker/memory.limit_in_bytes": str(512 * MIB),
    "memory/memory.limit_in_bytes": UNLIMITED_V1,
    "pids/docker/id/pids.max": "64",
}
V1_MEMBERSHIP = "9:name=systemd:/docker/id\n5:memory:/docker/id\n4:cpu,cpuacct:/docker/id\n3:pids:/docker/id\n"
V1_MOUNTS = {
    "cpu,cpuacct": "/ cgroup cgroup rw,cpu,cpuacct",
    "memory": "/ cgroup cgroup rw,memory",
    "pids": "/ cgroup cgroup rw,pids",
}


def test_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cgroups(tmp_path, monkeypatch, V1_MEMBERSHIP, V1_FILES, V1_MOUNTS)
    assert _limits() == (1.5, 512, 64)


def test_both_versions_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hybrid systemd: the controllers are in version 1, and version 2 has groups without limits."""
    mounts = V1_MOUNTS | {"unified": f"/ {VERSION_2}"}
    make_cgroups(tmp_path, monkeypatch, f"{V1_MEMBERSHIP}0::/docker/id\n", V1_FILES, mounts)
    assert _limits() == (1.5, 512, 64)


def test_version_1_in_a_container_without_its_own_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc has the host's path; the container's own group is mounted, and below it its child."""
    files = {
        "my memory/memory.limit_in_bytes": UNLIMITED_V1,
        "my memory/memory.stat": f"cache 0\nhierarchical_memory_limit {768 * MIB}\ntotal_cache 0",
        "my memory/child/memory.limit_in_bytes": str(800 * MIB),
    }
    mounts = {"my memory": "/docker/id cgroup cgroup rw,memory"}
    make_cgroups(tmp_path, monkeypatch, "5:memory:/docker/id/child\n", files, mounts)
    assert cgroups.memory_limit() == 768 * MIB  # of a group above the container's
    (tmp_path / "my memory/child/memory.limit_in_bytes").write_text(str(512 * MIB))
    assert cgroups.memory_limit() == 512 * MIB


def test_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cgroups(tmp_path, monkeypatch, "0::/\n", {})
    assert _limits() == (math.inf, math.inf, math.inf)
    monkeypatch.setattr(cgroups, "PROC", tmp_path / "nowhere")  # not Linux
    assert _limits() == (math.inf, math.inf, math.inf)


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A new memory cgroup below this process's own, where the machine allows one."""
    try:
        memory = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = {controllers: path for _, controllers, path in memory}
        version_1 = "memory" in own
        root = Path("/sys/fs/cgroup/memory" if version_1 else "/sys/fs/cgroup")
        group = root / own["memory" if version_1 else ""].lstrip("/") / f"trainer-test-{os.getpid()}"
        group.mkdir()
    except (OSError, KeyError) as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(512 * MIB))
    except OSError as error:
        group.rmdir()
        pytest.skip(f"no memory limit can be set here: {error}")
    (group / "child").mkdir()
    yield group / "child"
    (group / "child").rmdir()
    group.rmdir()


# Joins the group, then becomes the command.
JOIN = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')


def test_memory_of_a_real_group(real_group: Path) -> None:
    script = "from trainer.machine import memory_budget, memory_limit; print(memory_limit(), memory_budget())"
    command = [*JOIN, str(real_group), sys.executable, "-c", script]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert list(map(int, printed.split())) == [512 * MIB, 128 * MIB]


def test_server_in_a_real_group_outlives_large_images(real_group: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (5000, 5000), (10, 20, 30, 128)).save(file, "PNG")
    command = (*JOIN, str(real_group), str(BENTOML), "serve", ".")
    with serving(tiny_artifact, tmp_path, command=command) as server, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(server.predict, [file.getvalue()] * 4))
        assert {reply.status for reply in replies} <= {200, 413, 503, 504}
        assert server.process.poll() is None
        budget = re.search(r"requests in flight get at most (\d+) MiB", server.log.read_text())
    assert budget
    assert int(budget[1]) < 512
