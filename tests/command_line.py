"""Helpers for tests of the command line: run a command, and make small data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.datasets import load_digits
from typer.main import get_command

from trainer.cli import run
from trainer.cli_options import run_command, with_options
from trainer.config import FitConfig

BIN = Path(sys.executable).parent
FIT = ["fit", "--dataset", "builtin:digits", "--precision", "float32", "--json"]


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command line in this process → exit code, JSON lines of stdout, stderr."""
    capsys.readouterr()
    code = run(arguments)
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


def parse_fit(*arguments: str) -> FitConfig:
    """The configuration of a command line of `trainer fit`; a later option overrides an earlier one."""
    configs: list[FitConfig] = []
    app = typer.Typer(add_completion=False)
    app.command()(with_options(FitConfig)(configs.append))
    assert run_command(get_command(app), arguments) == 0
    return configs[0]


def next_command(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line without `--json` → the command that its last line on stderr suggests."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "next:" not in printed.out
    last = printed.err.splitlines()[-1]
    assert last.startswith("next: ")
    return last.removeprefix("next: ")


def write_digit(path: Path, index: int) -> str:
    """Write one of the built-in digits as a PNG → its class name."""
    digits = load_digits()
    Image.fromarray((digits.images[index] * 255 / 16).round().astype(np.uint8)).save(path)
    return str(digits.target[index])


def make_folder(root: Path, classes: dict[str, int], *, side: int = 12, gray: bool = False) -> Path:
    """Write a folder of random images, class name → count. Gray ones need no pretrained network: that is faster."""
    generator = np.random.default_rng(0)
    for label, count in classes.items():
        (root / label).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels[:, :, 0] if gray else pixels).save(root / label / f"{index}.png")
    return root
