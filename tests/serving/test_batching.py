from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from busy import use_cpu
from numpy.typing import NDArray

from trainer.artifact.engine import Outputs
from trainer.serving.batching import BATCH_SIZES, BatchRunner

TIMEOUT_S = 10


class FakeEngine:
    """Answers an image with its first pixel; can be held up, and notes the size of every batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.threads: list[str] = []
        self.cpu_seconds = 0.0
        self.fails = False

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        assert self.may_run.wait(TIMEOUT_S)
        self.sizes.append(len(images))
        self.threads.append(threading.current_thread().name)
        use_cpu(self.cpu_seconds)
        if self.fails:
            raise RuntimeError("broken")
        return {"pixel": images[:, 0, 0].astype(np.float32)}


def image(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 1), value, np.uint8)


def run(test: Callable[[FakeEngine, BatchRunner], Coroutine[Any, Any, None]], queue_length: int = 256) -> FakeEngine:
    engine = FakeEngine()
    runner = BatchRunner(engine, (2, 2, 1), queue_length=queue_length)

    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test(engine, runner)

    try:
        asyncio.run(bounded())
    finally:
        engine.may_run.set()
        runner.close()
    return engine


async def until_running(runner: BatchRunner) -> None:
    """Give the runner the time to hand its first batch to the engine."""
    while runner.waiting:
        await asyncio.sleep(0)


def test_images_that_arrive_during_a_batch_are_the_next_batch() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        engine.may_run.clear()
        first = runner.predict(image(7))
        await until_running(runner)
        rest = [runner.predict(image(value)) for value in range(20)]
        engine.may_run.set()
        assert (await first)["pixel"].tolist() == [7]
        assert [row["pixel"].tolist() for row in await asyncio.gather(*rest)] == [[value] for value in range(20)]

    assert run(test).sizes == [1, 20]


def test_images_that_arrive_together_are_one_batch() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        await asyncio.gather(*(runner.predict(image(value)) for value in range(4)))

    assert run(test).sizes == [4]


def test_a_batch_has_a_maximum_size() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        await asyncio.gather(*(runner.predict(image(0)) for _ in range(70)))

    assert run(test).sizes == [64, 6]


def test_a_full_queue_refuses() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        engine.may_run.clear()
        futures = [runner.predict(image(0))]
        await until_running(runner)
        futures += [runner.predict(image(0)) for _ in range(3)]
        assert runner.full
        with pytest.raises(asyncio.QueueFull):
            runner.predict(image(0))
        engine.may_run.set()
        await asyncio.gather(*futures)
        assert not runner.full

    run(test, queue_length=3)


def test_a_cancelled_image_is_never_computed() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        engine.may_run.clear()
        first = runner.predict(image(1))
        await until_running(runner)
        waiting = [runner.predict(image(value)) for value in (2, 3, 4)]
        waiting[1].cancel()
        with pytest.raises(TimeoutError):  # a deadline cancels what it waits for
            async with asyncio.timeout(0.01):
                await waiting[2]
        engine.may_run.set()
        assert (await first)["pixel"].tolist() == [1]
        assert (await waiting[0])["pixel"].tolist() == [2]

    assert run(test).sizes == [1, 1]


def test_an_engine_that_fails_fails_its_batch_and_no_other() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        engine.fails = True
        with pytest.raises(RuntimeError, match="broken"):
            await runner.predict(image(1))
        engine.fails = False
        assert (await runner.predict(image(1)))["pixel"].tolist() == [1]

    run(test)


@pytest.mark.parametrize(("short", "thread"), [(TIMEOUT_S, "MainThread"), (0.001, "engine_0")])
def test_a_short_batch_is_run_on_the_event_loop(short: float, thread: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.serving.batching.SHORT_S", short)
    engine = FakeEngine()
    engine.cpu_seconds = 0.002
    runner = BatchRunner(engine, (2, 2, 1), queue_length=9)

    async def test() -> None:
        for _ in range(2):
            futures = [runner.predict(image(value)) for value in range(3)]
            assert [row["pixel"].tolist() for row in await asyncio.gather(*futures)] == [[0], [1], [2]]
        engine.fails = True
        futures = [runner.predict(image(value)) for value in range(3)]
        for failure in await asyncio.gather(*futures, return_exceptions=True):
            assert str(failure) == "broken"

    asyncio.run(test())
    runner.close()
    # How long a size takes is known once it has run.
    assert engine.threads == ["engine_0", thread, thread]


@pytest.mark.parametrize(
    ("spare_cpu", "queue_length", "threads"),
    [
        (True, 256, ["engine_0", "MainThread"]),
        (False, 256, ["MainThread", "MainThread"]),
        (False, 128, ["engine_0", "engine_0"]),  # a flood: it fills the queue
    ],
)
def test_a_backlog_is_drained_in_a_thread(
    spare_cpu: bool, queue_length: int, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.serving.batching.SHORT_S", TIMEOUT_S)
    engine = FakeEngine()
    engine.cpu_seconds = 0.002
    runner = BatchRunner(engine, (2, 2, 1), queue_length=queue_length, spare_cpu=spare_cpu)
    runner.warm_up(max_batch_s=10)
    engine.threads.clear()

    async def test() -> None:
        futures = [runner.predict(image(value)) for value in range(128)]
        assert [row["pixel"].tolist() for row in await asyncio.gather(*futures)] == [[value] for value in range(128)]

    asyncio.run(test())
    runner.close()
    assert engine.sizes[-2:] == [64, 64]
    assert engine.threads == threads


def test_a_queue_of_cancelled_images_leaves_the_runner_ready() -> None:
    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        engine.may_run.clear()
        first = runner.predict(image(1))
        await until_running(runner)
        flood = [runner.predict(image(2)) for _ in range(4)]
        for future in flood:
            future.cancel()
        engine.may_run.set()
        assert (await first)["pixel"].tolist() == [1]
        assert (await runner.predict(image(3)))["pixel"].tolist() == [3]

    assert run(test, queue_length=4).sizes == [1, 1]


def test_each_batch_is_reported() -> None:
    reported: list[int] = []
    runner = BatchRunner(FakeEngine(), (2, 2, 1), queue_length=9, on_batch=lambda size, seconds: reported.append(size))

    async def test() -> None:
        await asyncio.gather(*(runner.predict(image(0)) for _ in range(3)))

    asyncio.run(test())
    runner.close()
    assert reported == [3]


def test_warm_up_runs_every_size_that_will_be_used() -> None:
    engine = FakeEngine()
    engine.cpu_seconds = 0.002
    runner = BatchRunner(engine, (2, 2, 1), queue_length=100)
    runner.warm_up(max_batch_s=10)
    assert sorted(set(engine.sizes)) == list(BATCH_SIZES)
    assert runner.largest_batch == BATCH_SIZES[-1]
    runner.close()


def test_no_batch_is_larger_than_the_queue() -> None:
    engine = FakeEngine()
    engine.cpu_seconds = 0.002
    runner = BatchRunner(engine, (2, 2, 1), queue_length=5)
    runner.warm_up(max_batch_s=10)
    assert runner.largest_batch == 5
    runner.close()


@pytest.mark.parametrize(
    ("each_batch", "each_image", "max_batch_s", "largest", "tried"),
    [(0.020, 0.010, 0.05, 2, 4), (0.0, 0.020, 10, 1, 4)],
    ids=["a batch of 4 takes too long", "batches of 2 and 4 save nothing"],
)
def test_the_largest_batch_is_fast_and_saves_work(
    each_batch: float, each_image: float, max_batch_s: float, largest: int, tried: int
) -> None:
    class SlowEngine(FakeEngine):
        def predict(self, images: NDArray[np.uint8]) -> Outputs:
            self.cpu_seconds = each_batch + each_image * len(images)
            return super().predict(images)

    engine = SlowEngine()
    runner = BatchRunner(engine, (2, 2, 1), queue_length=100)
    runner.warm_up(max_batch_s)
    assert runner.largest_batch == largest
    assert max(engine.sizes) == tried
    runner.close()


def test_one_bad_measurement_does_not_end_the_search() -> None:
    class DisturbedEngine(FakeEngine):
        def predict(self, images: NDArray[np.uint8]) -> Outputs:
            self.cpu_seconds = 0.006 if len(images) == 2 else 0.002
            return super().predict(images)

    runner = BatchRunner(DisturbedEngine(), (2, 2, 1), queue_length=100)
    runner.warm_up(max_batch_s=10)
    assert runner.largest_batch == BATCH_SIZES[-1]
    runner.close()


def test_batch_sizes_are_chosen_by_cpu_time() -> None:
    class SleepingEngine(FakeEngine):
        def predict(self, images: NDArray[np.uint8]) -> Outputs:
            time.sleep(0.01 * (len(images) > 1))
            return super().predict(images)

    engine = SleepingEngine()
    engine.cpu_seconds = 0.002
    runner = BatchRunner(engine, (2, 2, 1), queue_length=100)
    runner.warm_up(max_batch_s=0.1)
    assert runner.largest_batch == BATCH_SIZES[-1]
    runner.close()


def test_a_failing_metric_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(size: int, seconds: float) -> None:
        raise OSError("no space left on device")

    runner = BatchRunner(FakeEngine(), (2, 2, 1), queue_length=9, on_batch=broken)

    async def test() -> None:
        for value in range(3):
            assert (await runner.predict(image(value)))["pixel"].tolist() == [value]

    asyncio.run(test())
    runner.close()
    assert "an error after a batch" in caplog.text
    assert not runner.stalled


def test_a_batch_that_does_not_end_is_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.serving.batching.STALLED_S", 0.05)

    async def test(engine: FakeEngine, runner: BatchRunner) -> None:
        assert not runner.stalled
        engine.may_run.clear()
        future = runner.predict(image(1))
        await asyncio.sleep(0.01)
        assert not runner.stalled
        await asyncio.sleep(0.1)
        assert runner.stalled
        engine.may_run.set()
        await future
        await asyncio.sleep(0.01)
        assert not runner.stalled

    run(test)
