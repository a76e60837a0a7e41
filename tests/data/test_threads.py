from __future__ import annotations

import types

import pytest

from trainer.data import threads


def test_exit_fails_further_calls_and_waits_until_none_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(threads, "time", types.SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    guard = threads.ExitGuard()
    double = guard.wrap(lambda x: 2 * x)
    assert double(4) == 8
    guard.exit()
    waited = now - 1000
    assert threads.QUIET_S <= waited < threads.MAX_WAIT_S
    guard.exit()
    assert now - 1000 == waited
    with pytest.raises(RuntimeError, match="the process is exiting"):
        double(4)
