"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def hardware() -> str:
    """One line: system, number of cores, processor (of Linux)."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{platform.platform()}, {os.cpu_count()} x {names[0].split(': ')[1]}"
