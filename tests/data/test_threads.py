from __future__ import annotations

import types

import pytest

from trainer.data import threads


def test_calls_fail_once_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    double = threads.until_exit(lambda x: 2 * x)
    assert double(4) == 8
    monkeypatch.setattr(threads, "_exiting", True)
    with pytest.raises(RuntimeError, match="the process is exiting"):
        double(4)


def test_the_end_waits_until_no_call_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_exiting", False)  # restored afterwards
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(threads, "time", types.SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(threads, "_last_call", now)
    threads._wait_for_threads()
    waited = now - 1000
    assert threads.QUIET_S <= waited < threads.MAX_WAIT_S
    threads._wait_for_threads()
    assert now - 1000 == waited
