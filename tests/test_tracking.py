from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import metrics, report, tracking


@pytest.fixture(autouse=True)
def _no_folder_of_wandbs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.delenv("WANDB_MODE")


def start(folder: Path, mode: str, **options: Any) -> tracking.Tracker:
    arguments: dict[str, Any] = {"config": {"epochs": 3}, "name": "n", "run_id": None, "resume": False} | options
    return tracking.start(mode, run_dir=folder, **arguments)


def written(folder: Path) -> bytes:
    """The records of the offline runs: their strings stand in them as they are."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")))


def test_offline_holds_config_history_and_summary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "trainer"):
        tracker = start(tmp_path, "auto")
    assert "wandb sync" in caplog.text
    tracker.log(10, {"val_accuracy": 0.5, "loss": 1.0})
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.array([[0.9, 0.1], [0.8, 0.2]], np.float32))
    mistakes = [report.Mistake(np.zeros((8, 8, 1), np.uint8), 1, 0, 0.8)]
    pictures = report.write(tmp_path / "r", labels=["a", "b"], evaluation=evaluation, history=None, mistakes=mistakes)
    tracker.log_report(pictures, mistakes, ["a", "b"], evaluation)
    tracker.summary({"tag": "mnist:x"})
    tracker.finish(0)
    expected = (b"epochs", b"val_accuracy", b"worst_mistakes", b"confusion_matrix", b"per_class_accuracy", b"mnist:x")
    for text in (*expected, b"report/confusion"):
        assert text in written(tmp_path), text
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/**/*.png"))) >= 4


def test_a_resumed_run_keeps_its_id_and_a_failed_one_its_reason(tmp_path: Path) -> None:
    first = start(tmp_path, "offline")
    first.finish(3, "the loss is not finite")
    time.sleep(1.1)  # the folder's name is the time in seconds
    second = start(tmp_path, "offline", run_id=first.id, resume=True)
    second.finish(0)
    assert second.id == first.id
    assert {path.name.rsplit("-", 1)[1] for path in tmp_path.glob("wandb/offline-run-*")} == {first.id}
    assert b"the loss is not finite" in written(tmp_path)


def test_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unused_ports: list[int]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused_ports[0]}")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(tracking, "INIT_TIMEOUT_S", 3)
    begin = time.monotonic()
    tracker = start(tmp_path, "auto")
    assert time.monotonic() - begin < 60
    tracker.log(1, {"loss": 1.0})
    tracker.finish(0)
    assert "tracking offline" in caplog.text
    assert b"loss" in written(tmp_path)


def test_wandbs_failures_are_said_once_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("gone")

    tracker = tracking.Tracker("x", Broken())
    tracker.log(1, {})
    tracker.summary({})
    tracker.finish(1, "x")
    assert [record.message for record in caplog.records] == ["W&B failed and is ignored from here on: gone"]


def test_disabled_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainer import tracking;"
        f"folder = Path({str(tmp_path)!r});"
        "t = tracking.start('disabled', config={}, run_dir=folder, name='n', run_id=None, resume=False);"
        "t.log(1, {}); t.finish(0); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not list(tmp_path.iterdir())
