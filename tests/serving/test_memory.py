from __future__ import annotations

import asyncio
import platform
import subprocess
import sys
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


def test_waiting_requests_are_served_in_turn() -> None:
    memory = MemoryBudget(100)

    async def test() -> None:
        assert memory.take(60)
        order: list[int] = []

        async def acquire(size: int) -> None:
            await memory.acquire(size)
            order.append(size)

        tasks = [asyncio.create_task(acquire(size)) for size in (90, 10, 50)]
        await asyncio.sleep(0.01)
        assert order == []  # a small request does not pass a large one for ever
        assert not memory.take_in_turn(10)
        threading.Thread(target=memory.give_back, args=[60]).start()  # decoders' threads do
        await asyncio.wait_for(asyncio.gather(*tasks[:2]), 5)
        assert order == [90, 10]
        memory.give_back(90)
        await asyncio.wait_for(tasks[2], 5)
        memory.give_back(60)
        assert memory.take_in_turn(100)

    asyncio.run(test())


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_cancelled_request_keeps_nothing(turns: int) -> None:
    """Whether it waits, has been granted its memory, or is about to go on."""
    memory = MemoryBudget(100)

    async def test() -> None:
        assert memory.take(100)
        waiting = asyncio.create_task(memory.acquire(70))
        behind = asyncio.create_task(memory.acquire(30))
        await asyncio.sleep(0.01)
        memory.give_back(80)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not waiting.cancel():  # it is done, and has its memory
            memory.give_back(70)
        await asyncio.wait_for(behind, 5)
        memory.give_back(30 + 20)
        assert memory.take(100)

    asyncio.run(test())


def test_workers_share_the_memory_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < request_memory(2) < request_memory(1) < memory_limit()
    monkeypatch.setattr("trainer.serving.memory.memory_limit", lambda: 1 << 20)
    assert request_memory(1) == MIN_BUDGET


FREED_BLOCKS = """
import psutil
from trainer.serving.memory import return_freed_blocks
return_freed_blocks()
MIB = 1 << 20
bytearray(31 * MIB)  # once freed, glibc takes blocks of up to its size from the heap
resident = psutil.Process().memory_info().rss
blocks, between = [], []
for _ in range(10):
    blocks.append(bytearray(b"1") * (9 * MIB))
    between.append(bytes(2000))  # in the heap
assert psutil.Process().memory_info().rss - resident > 85 * MIB
del blocks
print((psutil.Process().memory_info().rss - resident) // MIB)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps freed blocks")
def test_freed_blocks_are_returned_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FREED_BLOCKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2
