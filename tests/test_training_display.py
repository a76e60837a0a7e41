from __future__ import annotations

import json
import logging

import pytest

from trainer.training_display import TrainingDisplay


def test_a_log_has_a_line_at_the_first_step_and_after_a_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.training_display.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO, "trainer")
    display = TrainingDisplay()
    for step, time_s in ((10, 100), (12, 104), (14, 106), (16, 109)):
        now[0] = time_s
        display.on_step(step, 44)
    assert caplog.messages == ["training: step 10 of 44", "training: step 14 of 44, at most 30 s left"]
    now[0] = 119
    display.on_step(20, 35)  # a time limit has changed the plan
    assert caplog.messages[2] == "training: step 20 of about 35, at most 28 s left"


def test_an_epoch_is_a_json_object_where_a_program_follows(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"epoch": 0, "val_loss": 0.5, "val_accuracy": 0.75}
    TrainingDisplay().on_epoch(entry, step=0, epochs=3)
    assert capsys.readouterr().out == ""
    TrainingDisplay(json_events=True).on_epoch(entry, step=0, epochs=3)
    assert json.loads(capsys.readouterr().out) == {"event": "epoch", "epochs": 3, **entry}
