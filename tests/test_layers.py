"""Import layers: the contracts of pyproject.toml, and `service.py`, which lies outside the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_import_contracts_hold() -> None:
    # In a process of its own: import-linter disables all existing loggers.
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_service_imports_only_the_server_and_what_it_shares_with_training() -> None:
    imports = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse((PROJECT / "service.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    packages = {name.split(".")[1] for name in imports if name.startswith("trainer.")}
    assert {"serving"} <= packages <= {"artifact", "config", "errors", "images", "machine", "serving"}
