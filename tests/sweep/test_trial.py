"""The program of a trial: nothing is exported below the best, and a linear probe alone needs no TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import parse_fit
from shape_images import folder_of, shape

from trainer.cli import run as run_command
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.runs.run_folder import read_run
from trainer.signals import Signals
from trainer.sweep import trial
from trainer.training.callbacks import CallbackList

PROBE = ("--fine-tune=none", "--image-size=64", "--quantize=none", "--no-save", "--wandb=disabled")
WITHOUT_TENSORFLOW = """\
import sys
from trainer.sweep.trial import main
try:
    main()
finally:
    assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""


def run_without_tensorflow(*arguments: str) -> dict[str, Any]:
    """The result that the program of a trial prints at its end; its stdin stays open meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments],
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


def run_here(*arguments: str, **options: Any) -> dict[str, Any]:
    """The result of a trial in this process, where TensorFlow has started already."""
    with Signals() as signals:
        result = trial.run_trial(parse_fit(*arguments), CallbackList(), signals, **options)
    plain: dict[str, Any] = json.loads(json.dumps(result))
    return plain


@pytest.mark.slow
def test_a_probe_below_the_best_needs_no_tensorflow_and_is_exported_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a sweep may export its winner alone, when it is known."""
    monkeypatch.chdir(tmp_path)
    shapes = str(folder_of(tmp_path / "shapes", shape, ("disc", "square"), 40))
    first = run_here(shapes, *PROBE, "--run-dir=first", export_above=1.1)  # computes the features
    assert "test_accuracy" not in first
    below = (shapes, *PROBE, "--run-dir=below")
    result = run_without_tensorflow(*below, "--export-above=1.1")
    assert result["val_accuracy"] == first["val_accuracy"]
    assert "test_accuracy" not in result
    assert not Path("below", "export").exists()
    assert run_without_tensorflow(*below, "--export-above=1.1") == result
    assert run_command(["save", "below"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: below: its model has not been exported, as that of most trials of a sweep; `trainer"
    )
    assert "`trainer fit --resume below` does so" in error

    exported = run_here(*below, export_above=-1)  # the best now
    assert exported["test_accuracy"] is not None
    assert exported["val_accuracy"] == result["val_accuracy"]
    assert read_run(Path("below"))["result"] == exported
    assert run_command(["save", "below", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tag"].startswith("shapes:")
    # The same command goes on with either run.
    assert read_run(Path("below"))["identity"] == read_run(Path("first"))["identity"]
    assert run_command(["runs", ".", "--json"]) == 0
    states = {entry["path"]: entry["state"] for entry in map(json.loads, capsys.readouterr().out.splitlines())}
    assert states == dict.fromkeys(("below", "first"), "finished")


def test_a_network_below_the_best_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("builtin:digits", "--limit=200", "--epochs=1", "--quantize=none", "--no-save", "--wandb=disabled")
    result = run_here(*arguments, "--run-dir=below", export_above=1.1)
    assert 0 < result["val_accuracy"] < 1
    assert sorted(file.name for file in Path("below").iterdir()) == ["lock", "run.json"]
    later = run_here(*arguments, "--run-dir=later", keep_checkpoints=True)
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
