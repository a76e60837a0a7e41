from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.artifact.engine import Outputs
from trainer.serving.parallel import ParallelRunner

TIMEOUT_S = 30


class FakeEngine:
    """Answers an image with its first pixel; can be held up."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.entered = 0
        self.may_run = threading.Event()
        self.may_run.set()

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        self.entered += 1
        assert self.may_run.wait(TIMEOUT_S)
        value = int(images[0, 0, 0, 0])
        self.seen.append(value)
        if value == 255:
            raise RuntimeError("broken")
        return {"pixel": images[:, 0, 0].astype(np.float32)}


def image(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 1), value, np.uint8)


class Fixture:
    """A runner with two engines, and one engine with all CPUs."""

    def __init__(self, queue_length: int) -> None:
        self.whole, self.engines = FakeEngine(), [FakeEngine(), FakeEngine()]
        self.reported: list[int] = []
        self.runner = ParallelRunner(
            self.whole,
            self.engines,
            queue_length=queue_length,
            on_batch=lambda size, seconds: self.reported.append(size),
        )

    def hold(self) -> None:
        for engine in (self.whole, *self.engines):
            engine.may_run.clear()

    def release(self) -> None:
        for engine in (self.whole, *self.engines):
            engine.may_run.set()


def run(test: Callable[[Fixture], Coroutine[Any, Any, None]], queue_length: int = 256) -> Fixture:
    fixture = Fixture(queue_length)

    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test(fixture)

    try:
        asyncio.run(bounded())
    finally:
        fixture.release()
        fixture.runner.close()
    return fixture


def test_an_image_that_comes_alone_has_all_cpus() -> None:
    async def test(fixture: Fixture) -> None:
        for value in range(3):
            assert (await fixture.runner.predict(image(value)))["pixel"].tolist() == [value]

    fixture = run(test)
    assert fixture.whole.seen == [0, 1, 2]
    assert [engine.seen for engine in fixture.engines] == [[], []]
    assert fixture.reported == [1, 1, 1]


def test_images_that_come_together_run_at_once() -> None:
    async def test(fixture: Fixture) -> None:
        fixture.hold()
        futures = [fixture.runner.predict(image(value)) for value in range(6)]
        while sum(engine.entered for engine in (fixture.whole, *fixture.engines)) < 2:
            await asyncio.sleep(0.001)
        assert fixture.runner.waiting == 4
        fixture.release()
        assert [row["pixel"].tolist() for row in await asyncio.gather(*futures)] == [[value] for value in range(6)]
        assert fixture.runner.waiting == 0

    run(test)


def test_a_full_queue_refuses_and_a_cancelled_image_is_never_computed() -> None:
    async def test(fixture: Fixture) -> None:
        fixture.hold()
        futures = [fixture.runner.predict(image(value)) for value in range(5)]
        assert fixture.runner.full
        with pytest.raises(asyncio.QueueFull):
            fixture.runner.predict(image(9))
        futures[4].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not fixture.runner.full
        fixture.release()
        await asyncio.gather(*futures[:4])

    fixture = run(test, queue_length=3)
    assert sorted(fixture.whole.seen + fixture.engines[0].seen + fixture.engines[1].seen) == [0, 1, 2, 3]


def test_an_engine_that_fails_fails_its_image_and_no_other() -> None:
    async def test(fixture: Fixture) -> None:
        results = await asyncio.gather(
            *(fixture.runner.predict(image(value)) for value in (255, 1, 255, 2)), return_exceptions=True
        )
        assert [str(result) for result in results[::2]] == ["broken", "broken"]
        assert [result["pixel"].tolist() for result in results[1::2] if isinstance(result, dict)] == [[1], [2]]
        assert (await fixture.runner.predict(image(3)))["pixel"].tolist() == [3]

    run(test)


def test_every_engine_is_warm_before_the_first_image() -> None:
    fixture = Fixture(9)
    fixture.runner.warm_up((2, 2, 1))
    fixture.runner.close()
    assert [engine.seen for engine in fixture.engines] == [[0, 0, 0], [0, 0, 0]]


def test_hung_engines_are_a_stall_although_their_clients_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, each of which is cancelled by its deadline; the queue keeps its length."""
    monkeypatch.setattr("trainer.serving.parallel.STALLED_S", 0.1)

    async def test(fixture: Fixture) -> None:
        fixture.hold()
        for _ in range(10):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await fixture.runner.predict(image(1))
        assert fixture.runner.stalled
        assert fixture.runner.waiting == 0
        fixture.release()
        while fixture.runner.stalled:
            await asyncio.sleep(0.001)
        assert (await fixture.runner.predict(image(2)))["pixel"].tolist() == [2]

    fixture = run(test, queue_length=3)
    assert sorted(fixture.whole.seen + fixture.engines[0].seen + fixture.engines[1].seen) == [1, 1, 2]


def test_one_hung_engine_of_several_is_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.serving.parallel.STALLED_S", 0.1)

    async def test(fixture: Fixture) -> None:
        fixture.whole.may_run.clear()
        hung = fixture.runner.predict(image(1))
        while not fixture.runner.stalled:
            assert (await fixture.runner.predict(image(2)))["pixel"].tolist() == [2]
        fixture.release()
        assert (await hung)["pixel"].tolist() == [1]

    run(test)


def test_engines_that_do_not_return_are_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.serving.parallel.STALLED_S", 0.05)

    async def test(fixture: Fixture) -> None:
        assert not fixture.runner.stalled
        fixture.hold()
        futures = [fixture.runner.predict(image(value)) for value in range(3)]
        await asyncio.sleep(0.01)
        assert not fixture.runner.stalled
        await asyncio.sleep(0.1)
        assert fixture.runner.stalled
        fixture.release()
        await asyncio.gather(*futures)
        assert not fixture.runner.stalled

    run(test)
