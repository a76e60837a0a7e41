"""Imports go down only: pyproject.toml's contracts, and `service.py`, which is no package and so in none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_the_contracts_are_kept() -> None:
    # Not in this process: import-linter turns off the loggers that there are.
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_service_stands_on_the_server_and_what_it_shares_with_training() -> None:
    imports = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse((PROJECT / "service.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    rooms = {name.split(".")[1] for name in imports if name.startswith("trainer.")}
    assert {"serving"} <= rooms <= {"artifact", "config", "images", "machine", "serving"}
