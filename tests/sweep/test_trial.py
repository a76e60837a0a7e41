"""The program of a trial: nothing is exported below the best, and a linear probe alone needs no TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shape_images import folder_of, shape

from trainer.cli import run as run_command
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.runs.run_folder import read_run
from trainer.signals import Signals
from trainer.sweep import trial
from trainer.training.callbacks import CallbackList

PROBE = ("--fine-tune=none", "--image-size=64", "--no-save", "--wandb=disabled")
WITHOUT_TENSORFLOW = """\
import sys
from trainer.sweep.trial import main
try:
    main()
finally:
    assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""
WITH_TENSORFLOW = "from trainer.sweep.trial import main; main()"


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(folder_of(tmp_path / "shapes", shape, ("disc", "square"), 40))


def run_trial(program: str, *arguments: str) -> dict[str, Any]:
    """The result that a trial prints at its end; its stdin stays open meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines = process.stdout.readlines()
        assert process.stderr
        assert process.wait(120) == 0, process.stderr.read()
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def test_a_probe_below_the_best_needs_no_tensorflow_and_is_not_exported(
    shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = run_trial(WITH_TENSORFLOW, shapes, *PROBE, "--run-dir=exported", "--export-above=-1")
    assert exported["test_accuracy"] is not None
    result = run_trial(WITHOUT_TENSORFLOW, shapes, *PROBE, "--run-dir=below", "--export-above=1.1")
    assert result["val_accuracy"] == exported["val_accuracy"]
    assert "test_accuracy" not in result
    assert not Path("below", "export").exists()
    # The same command goes on with either run.
    assert read_run(Path("below"))["identity"] == read_run(Path("exported"))["identity"]
    assert run_trial(WITHOUT_TENSORFLOW, shapes, *PROBE, "--run-dir=below", "--export-above=1.1") == result
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
    run_trial(WITH_TENSORFLOW, shapes, *PROBE, "--run-dir=one", "--export-above=1.1")
    result = run_trial(WITH_TENSORFLOW, shapes, *PROBE, "--run-dir=one")
    assert result["test_accuracy"] is not None
    assert read_run(Path("one"))["result"] == result
    assert run_command(["save", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tag"].startswith("shapes:")


def test_a_network_below_the_best_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("builtin:digits", "--limit=200", "--epochs=1", "--no-save", "--wandb=disabled")
    result = run_trial(WITH_TENSORFLOW, *arguments, "--run-dir=below", "--export-above=1.1")
    assert 0 < result["val_accuracy"] < 1
    assert sorted(file.name for file in Path("below").iterdir()) == ["lock", "run.json"]
    later = run_trial(WITH_TENSORFLOW, *arguments, "--run-dir=later", "--keep-checkpoints")
    assert later["val_accuracy"] == result["val_accuracy"]
    assert Path("later", "checkpoints").exists()
    assert run_command(["fit", "--resume=later", "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["train_seconds"] == later["train_seconds"]  # nothing was trained again
    assert exported["test_accuracy"] is not None
    assert not Path("later", "checkpoints").exists()


def test_a_model_to_be_saved_is_always_exported() -> None:
    with pytest.raises(InputError, match="--no-save"):
        trial.run_trial(FitConfig("builtin:digits"), CallbackList(), Signals(), export_above=0.5)
