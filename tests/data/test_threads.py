from __future__ import annotations

import time

import pytest

from trainer.data import threads


def test_calls_fail_once_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    double = threads.until_exit(lambda x: 2 * x)
    assert double(4) == 8
    monkeypatch.setattr(threads, "_ending", True)
    with pytest.raises(RuntimeError, match="the process is ending"):
        double(4)


def test_the_end_waits_until_no_call_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_ending", False)  # restored afterwards
    monkeypatch.setattr(threads, "_last_call", time.monotonic())
    start = time.monotonic()
    threads._wait_for_rest()
    assert threads.QUIET_S * 0.9 < time.monotonic() - start < threads.MAX_WAIT_S
    start = time.monotonic()
    threads._wait_for_rest()
    assert time.monotonic() - start < threads.QUIET_S
