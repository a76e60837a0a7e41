from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.sweep.executor import FitProcess


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace `python -m trainer fit` by a shell script."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_the_signal_of_a_killed_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo epoch 3/5 >&2; kill -KILL $$")
    process = FitProcess([], tmp_path, {})
    assert list(process.events()) == []
    assert process.outcome.result is None
    assert "SIGKILL" in process.outcome.reason
    assert "--workers" in process.outcome.reason


def test_epochs_and_the_result_are_events_and_stderr_is_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ['{"event": "epoch", "epoch": 1, "val_accuracy": 0.5}', '{"val_accuracy": 0.6}']
    stand_in(tmp_path, monkeypatch, f"echo $WORD >&2; printf '%s\\n' '{lines[0]}' '{lines[1]}'")
    process = FitProcess([], tmp_path / "trial", {"WORD": "hello"})
    assert [event["epoch"] for event in process.events()] == [1]
    assert process.outcome.result == {"val_accuracy": 0.6}
    assert (tmp_path / "trial" / "fit.log").read_text() == "hello\n"


def test_the_reason_of_wrong_input_is_the_last_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo error: --epochs: 0 is out of range >&2; echo next: … >&2; exit 2")
    process = FitProcess([], tmp_path, {})
    assert list(process.events()) == []
    assert process.outcome.is_input
    assert process.outcome.reason == "--epochs: 0 is out of range"
