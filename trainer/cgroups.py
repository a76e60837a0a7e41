"""Limits of this process's control groups (cgroups), versions 1 and 2.

A limit holds for a group and for all groups below it, so the smallest one on the way from the process's own group up
to the root applies. /proc says where the groups are: `cgroup` has the path of the process's group in each hierarchy,
`mountinfo` the folder at which a hierarchy, or a part of it, is mounted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
NO_LIMIT = float("inf")


def cpu_limit() -> float:
    """CPUs, as a fraction of time; infinite without a limit."""
    return _smallest("cpu", _cpus)


def memory_limit() -> float:
    """Bytes; infinite without a limit."""
    return _smallest("memory", _memory)


def process_limit() -> float:
    """Processes and threads together; infinite without a limit."""
    return _smallest("pids", lambda folder: _number(_read(folder / "pids.max")))


def _smallest(controller: str, limit: Callable[[Path], float]) -> float:
    return min(map(limit, _folders(controller)), default=NO_LIMIT)


def _folders(controller: str) -> list[Path]:
    """Folders of the process's groups with this controller, and of all groups above them that are mounted."""
    try:
        groups = _groups((PROC / "cgroup").read_text())
        mounts = (PROC / "mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return []
    folders = []
    for mount in mounts:
        # 36 35 0:32 ROOT MOUNT_POINT OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS
        fields, _, kind = mount.partition(" - ")
        file_system, _, options = kind.partition(" ")
        if file_system == "cgroup2":
            group = groups.get("")
        elif file_system == "cgroup" and controller in options.split()[-1].split(","):
            group = groups.get(controller)
        else:
            continue
        if group is not None:
            root, mount_point = (_unescape(field) for field in fields.split()[3:5])
            folders += _way_up(Path(mount_point), PurePosixPath(group), PurePosixPath(root))
    return folders


def _groups(membership: str) -> dict[str, str]:
    """Controller → path of the group, from lines `ID:CONTROLLER,CONTROLLER:PATH`; version 2 has the controller ""."""
    groups = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _way_up(mount_point: Path, group: PurePosixPath, root: PurePosixPath) -> list[Path]:
    """Folders from a group up to the mount point, at which the group `root` is mounted."""
    # A group outside of the mounted part, as in some containers, has no folder; what is mounted is around it, or is it.
    inside = group.relative_to(root) if group.is_relative_to(root) and ".." not in group.parts else PurePosixPath()
    return [mount_point / inside, *(mount_point / parent for parent in inside.parents)]


def _unescape(path: str) -> str:
    """A path of mountinfo, which has octal codes for white space and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _cpus(folder: Path) -> float:
    quota, period = _read(folder / "cpu.max").split() or (
        _read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    return _number(quota) / float(period or 1)


def _memory(folder: Path) -> float:
    # Above `memory.high` a process is slowed down until it hardly runs. In version 1, `memory.stat` knows the limits of
    # groups that are not mounted.
    stat = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
    values = [_read(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    return min(map(_number, [*values, stat.get("hierarchical_memory_limit", "")]))


def _read(file: Path) -> str:
    """The text of a file; empty where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(text: str) -> float:
    """A limit; infinite for an empty text, `max`, or a number that is not positive."""
    try:
        number = float(text)
    except ValueError:
        return NO_LIMIT
    return number if number > 0 else NO_LIMIT
