"""Trials that are not among the best of their sweep: nothing is exported, and a head alone needs no TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_warm_start import folder_of, shape

from trainer.cli import run as run_command
from trainer.runs.run_folder import read_run

HEAD = ("--fine-tune=none", "--image-size=64", "--no-save", "--wandb=disabled", "--json")
WITHOUT_TENSORFLOW = """\
import sys
from trainer.cli import run
code = run(sys.argv[1:])
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
raise SystemExit(code)
"""


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(folder_of(tmp_path / "shapes", shape, ("disc", "square"), 40))


def fit(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", program, "fit", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_head_below_the_best_needs_no_tensorflow_and_is_not_exported(
    shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    starting = WITHOUT_TENSORFLOW.replace("assert", "#")
    exported = fit(starting, shapes, *HEAD, "--run-dir=exported", "--export-above=-1")
    assert exported["test_accuracy"] is not None
    told = fit(WITHOUT_TENSORFLOW, shapes, *HEAD, "--run-dir=below", "--export-above=1.1")
    assert told["val_accuracy"] == exported["val_accuracy"]
    assert "test_accuracy" not in told
    assert not Path("below", "export").exists()
    # Those of one run are those of the other: the same command goes on with it.
    assert read_run(Path("below"))["identity"] == read_run(Path("exported"))["identity"]
    assert fit(WITHOUT_TENSORFLOW, shapes, *HEAD, "--run-dir=below", "--export-above=1.1") == told
    assert run_command(["runs", ".", "--json"]) == 0
    states = {entry["path"]: entry["state"] for entry in map(json.loads, capsys.readouterr().out.splitlines())}
    assert states == {"below": "finished", "exported": "finished"}
    assert run_command(["save", "below"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: below: its model has not been exported, as that of most trials of a sweep; `trainer"
    )
    assert "`trainer fit --resume below` does so" in error


def test_a_trial_that_was_not_exported_is_exported_when_that_is_asked_for(
    shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a sweep may export its winner alone, when it is known."""
    starting = WITHOUT_TENSORFLOW.replace("assert", "#")
    fit(starting, shapes, *HEAD, "--run-dir=one", "--export-above=1.1")
    told = fit(starting, shapes, *HEAD, "--run-dir=one")
    assert told["test_accuracy"] is not None
    assert read_run(Path("one"))["result"] == told
    assert run_command(["save", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tag"].startswith("shapes:")


def test_a_network_below_the_best_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("builtin:digits", "--limit=200", "--epochs=1", "--no-save", "--wandb=disabled", "--json")
    told = fit(WITHOUT_TENSORFLOW.replace("assert", "#"), *arguments, "--run-dir=below", "--export-above=1.1")
    assert 0 < told["val_accuracy"] < 1
    assert sorted(file.name for file in Path("below").iterdir()) == ["lock", "run.json"]
    later = fit(WITHOUT_TENSORFLOW.replace("assert", "#"), *arguments, "--run-dir=later", "--export-above=inf")
    assert later["val_accuracy"] == told["val_accuracy"]
    assert Path("later", "checkpoints").exists()
    exported = fit(WITHOUT_TENSORFLOW.replace("assert", "#"), "--resume=later", "--json")
    assert exported["train_seconds"] == later["train_seconds"]  # nothing was trained again
    assert exported["test_accuracy"] is not None
    assert not Path("later", "checkpoints").exists()


def test_a_model_to_be_saved_is_always_exported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["fit", "builtin:digits", "--export-above=0.5"]) == 2
    assert capsys.readouterr().err == "error: --export-above: is for the trials of a sweep; --no-save goes with it\n"
