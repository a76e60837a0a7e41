"""Library versions and git revision, which are recorded in the artifact."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version

PACKAGES = ("trainer", "tensorflow", "keras", "ai-edge-litert", "pillow", "numpy")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the artifact's contents."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def git_revision() -> str | None:
    """Commit of the current folder; None outside a git checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
