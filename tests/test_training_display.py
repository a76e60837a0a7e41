from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress

import pytest

from trainer.console import ECHO_S
from trainer.errors import Interrupted
from trainer.training_display import TrainingDisplay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that signals are told apart by, in its only entry."""
    now = [100.0]
    monkeypatch.setattr("trainer.console.time.monotonic", lambda: now[0])
    return now


def interrupted(number: int) -> int:
    """Send a signal that ends what runs; its exit code."""
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), number)
    return caught.value.exit_code


def test_a_log_has_a_line_at_the_first_step_and_where_it_has_been_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.training_display.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO, "trainer")
    display = TrainingDisplay()
    for step, time_s in ((10, 100), (12, 104), (14, 106), (16, 109)):
        now[0] = time_s
        display.on_progress(step, 44)
    assert caplog.messages == ["training: step 10 of 44", "training: step 14 of 44, at most 30 s left"]


def test_a_signal_waits_only_while_deferred(clock: list[float]) -> None:
    with TrainingDisplay() as display:
        with suppress(Interrupted), display.defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            clock[0] += ECHO_S
        assert interrupted(signal.SIGINT) == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_comes_twice_is_one_and_a_later_one_ends_at_once(clock: list[float]) -> None:
    with TrainingDisplay() as display, pytest.raises(Interrupted) as first, display.defer_signals():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)  # the terminal's, to the whole group
        clock[0] += 0.2
        os.kill(os.getpid(), signal.SIGTERM)  # what a sweep makes of its own
        clock[0] += ECHO_S
        assert interrupted(signal.SIGTERM) == 143
    assert first.value.exit_code == 130  # raised at the end of the training at the latest
