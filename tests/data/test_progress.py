from __future__ import annotations

import logging

import pytest

from trainer.data import progress


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    with caplog.at_level(logging.INFO, "trainer"):
        assert list(progress.track(["ab", "c"], len, total=3, bar=None)) == ["ab", "c"]
    assert caplog.messages == ["decoding images: 2 of 3", "decoding images: 3 of 3"]


def test_a_terminal_gets_a_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(progress.track(["ab", "c"], len, total=3, bar=True)) == ["ab", "c"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "decoding images" in err
