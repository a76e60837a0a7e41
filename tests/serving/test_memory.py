from __future__ import annotations

import threading

import pytest

from trainer.machine import memory_limit
from trainer.serving.memory import LEAST, Memory, left_for_requests


def test_what_is_not_there_is_not_given() -> None:
    memory = Memory(100)
    assert memory.take(60)
    assert not memory.take(50)
    assert memory.take(40)
    memory.give_back(60)
    assert memory.take(60)


def test_a_thread_waits_until_there_is_enough_again() -> None:
    memory = Memory(100)
    assert memory.take(60)
    threading.Timer(0.05, memory.give_back, [60]).start()
    with memory.hold(90, timeout_s=10):
        assert not memory.take(20)
    assert memory.take(100)


def test_a_thread_waits_no_longer_than_it_may() -> None:
    memory = Memory(100)
    assert memory.take(60)
    with pytest.raises(TimeoutError), memory.hold(90, timeout_s=0.01):
        pass
    assert memory.take(40)


def test_it_is_given_back_when_decoding_fails() -> None:
    memory = Memory(100)
    with pytest.raises(ValueError, match="corrupt"), memory.hold(90, timeout_s=1):
        raise ValueError("corrupt")
    assert memory.take(100)


def test_workers_share_what_the_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < left_for_requests(2) < left_for_requests(1) < memory_limit()
    monkeypatch.setattr("trainer.serving.memory.memory_limit", lambda: 1 << 20)
    assert left_for_requests(1) == LEAST
