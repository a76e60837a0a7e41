"""Made-up control groups: what /proc/self says, and the files of the groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from trainer import cgroups

VERSION_2 = "cgroup2 cgroup rw,nsdelegate"


def make_cgroups(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    files: Mapping[str, str],
    mounts: Mapping[str, str] | None = None,
) -> None:
    """Write /proc/self/cgroup (`membership`), mountinfo and `files` (path below `folder` → text), and use them.

    `mounts`: mount point below `folder` → "ROOT TYPE SOURCE OPTIONS"; by default version 2 is mounted at `cgroup`.
    """
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    lines = ["22 1 0:20 / /proc rw,nosuid - proc proc rw"]
    for point, mount in (mounts or {"cgroup": f"/ {VERSION_2}"}).items():
        root, kind = mount.split(" ", 1)
        escaped = str(folder / point).replace(" ", r"\040")
        lines.append(f"30 22 0:27 {root} {escaped} rw,relatime shared:9 - {kind}")
    proc = folder / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")
    (proc / "cgroup").write_text(membership)
    monkeypatch.setattr(cgroups, "PROC", proc)
