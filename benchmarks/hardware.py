"""Description of the machine, printed above every benchmark's figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def hardware() -> str:
    """Operating system, number of cores and processor name in one line (Linux only)."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{platform.platform()}, {os.cpu_count()} x {names[0].split(': ')[1]}"
