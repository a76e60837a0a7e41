from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from trainer.errors import Interrupted
from trainer.signals import DUPLICATE_S, Signals


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which duplicate signals are recognized, in its only entry."""
    now = [100.0]
    monkeypatch.setattr("trainer.signals.time.monotonic", lambda: now[0])
    return now


def interrupted(number: int) -> int:
    """Send a signal that raises Interrupted → its exit code."""
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), number)
    return caught.value.exit_code


def test_a_signal_waits_only_while_deferred(clock: list[float]) -> None:
    with Signals() as signals:
        with suppress(Interrupted), signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            clock[0] += DUPLICATE_S
        assert interrupted(signal.SIGINT) == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_duplicate_is_ignored_and_a_later_signal_raises_at_once(clock: list[float]) -> None:
    with Signals() as signals, pytest.raises(Interrupted) as first, signals.deferred():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)  # the terminal's, to the whole group
        clock[0] += 0.2
        os.kill(os.getpid(), signal.SIGTERM)  # the sweep's, on its own SIGINT
        clock[0] += DUPLICATE_S
        assert interrupted(signal.SIGTERM) == 143
    assert first.value.exit_code == 130  # raised at the end of the training at the latest


def test_signals_that_are_not_entered_never_interrupt() -> None:
    signals = Signals()
    with signals.deferred():
        signals.check_interrupted()
