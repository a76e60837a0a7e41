from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.sweep.executor import TrialProgram

# As Keras does when it fetches weights: from Python and from C, before and after the program has started.
PRINTING = """
import atexit, os, sys
from importlib.abc import MetaPathFinder
class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "keras":
            print("Downloading data from https://storage.example/weights.h5", flush=True)
            os.write(1, b"10/20 [====]\\n")
sys.meta_path.insert(0, Finder())
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace `python -m trainer fit` by a shell script."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_the_signal_of_a_killed_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo epoch 3/5 >&2; kill -KILL $$")
    process = TrialProgram([], tmp_path, {})
    assert list(process.events()) == []
    assert process.outcome.result is None
    assert "SIGKILL" in process.outcome.reason
    assert "--workers" in process.outcome.reason


def test_epochs_and_the_result_are_events_and_stderr_is_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ['{"event": "epoch", "epoch": 1, "val_accuracy": 0.5}', '{"val_accuracy": 0.6}']
    stand_in(tmp_path, monkeypatch, f"echo $WORD >&2; printf '%s\\n' '{lines[0]}' '{lines[1]}'")
    process = TrialProgram([], tmp_path / "trial", {"WORD": "hello"})
    assert [event["epoch"] for event in process.events()] == [1]
    assert process.outcome.result == {"val_accuracy": 0.6}
    assert (tmp_path / "trial" / "fit.log").read_text() == "hello\n"


def test_the_reason_of_wrong_input_is_the_last_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo error: --epochs: 0 is out of range >&2; echo next: … >&2; exit 2")
    process = TrialProgram([], tmp_path, {})
    assert list(process.events()) == []
    assert process.outcome.is_input
    assert process.outcome.reason == "--epochs: 0 is out of range"


@pytest.mark.parametrize(
    "line",
    [
        "Downloading data from https://storage.example/weights.h5",
        "[1, 2]",
        "{}",
        '{"event": "epoch", "epoch": "one", "val_accuracy": 0.5}',
        '{"event": "epoch", "epoch": 1}',
        "\\377",
    ],
)
def test_a_line_that_is_no_event_fails_the_trial_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    event = '{"event": "epoch", "epoch": 1, "val_accuracy": 0.5}'
    stand_in(
        tmp_path, monkeypatch, f"echo '{event}'; printf '{line}\\n'; echo '{event}'; echo '{{\"val_accuracy\": 1}}'"
    )
    process = TrialProgram([], tmp_path, {})
    assert list(process.events())[:1] == [{"event": "epoch", "epoch": 1, "val_accuracy": 0.5}]
    assert process.outcome.result is None
    assert "no event" in process.outcome.reason


def test_what_libraries_print_on_stdout_goes_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(PRINTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["--dataset=builtin:digits", "--epochs=1", "--limit=64", "--no-save", "--keep-checkpoints"]
    process = TrialProgram(options, tmp_path / "trial", {})
    assert [event["epoch"] for event in process.events()] == [1]
    assert process.outcome.result
    assert "Downloading data" in (tmp_path / "trial" / "fit.log").read_text()
