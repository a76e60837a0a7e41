from __future__ import annotations

import threading

import pytest

from trainer.machine import memory_limit
from trainer.serving.memory import MIN_BUDGET, MemoryBudget, request_memory


def test_no_more_than_the_budget_is_taken() -> None:
    memory = MemoryBudget(100)
    assert memory.take(60)
    assert not memory.take(50)
    assert memory.take(40)
    memory.give_back(60)
    assert memory.take(60)


def test_a_thread_waits_for_free_memory() -> None:
    memory = MemoryBudget(100)
    assert memory.take(60)
    threading.Timer(0.05, memory.give_back, [60]).start()
    with memory.hold(90, timeout_s=10):
        assert not memory.take(20)
    assert memory.take(100)


def test_a_thread_waits_until_its_timeout() -> None:
    memory = MemoryBudget(100)
    assert memory.take(60)
    with pytest.raises(TimeoutError), memory.hold(90, timeout_s=0.01):
        pass
    assert memory.take(40)


def test_memory_is_given_back_after_a_failure() -> None:
    memory = MemoryBudget(100)
    with pytest.raises(ValueError, match="corrupt"), memory.hold(90, timeout_s=1):
        raise ValueError("corrupt")
    assert memory.take(100)


def test_workers_share_the_memory_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < request_memory(2) < request_memory(1) < memory_limit()
    monkeypatch.setattr("trainer.serving.memory.memory_limit", lambda: 1 << 20)
    assert request_memory(1) == MIN_BUDGET
