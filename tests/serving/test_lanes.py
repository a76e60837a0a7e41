from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.artifact.engine import Outputs
from trainer.serving.lanes import Lanes

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


class Setting:
    """Lanes of two engines, and one of all CPUs."""

    def __init__(self, queue_length: int) -> None:
        self.whole, self.engines = FakeEngine(), [FakeEngine(), FakeEngine()]
        self.told: list[int] = []
        self.lanes = Lanes(
            self.whole,
            self.engines,
            queue_length=queue_length,
            on_batch=lambda size, seconds: self.told.append(size),
        )

    def hold(self) -> None:
        for engine in (self.whole, *self.engines):
            engine.may_run.clear()

    def release(self) -> None:
        for engine in (self.whole, *self.engines):
            engine.may_run.set()


def run(test: Callable[[Setting], Coroutine[Any, Any, None]], queue_length: int = 256) -> Setting:
    setting = Setting(queue_length)

    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test(setting)

    try:
        asyncio.run(bounded())
    finally:
        setting.release()
        setting.lanes.close()
    return setting


def test_an_image_that_comes_alone_has_all_cpus() -> None:
    async def test(setting: Setting) -> None:
        for value in range(3):
            assert (await setting.lanes.predict(image(value)))["pixel"].tolist() == [value]

    setting = run(test)
    assert setting.whole.seen == [0, 1, 2]
    assert [engine.seen for engine in setting.engines] == [[], []]
    assert setting.told == [1, 1, 1]


def test_images_that_come_together_are_run_at_once_and_answered_each_with_its_own() -> None:
    async def test(setting: Setting) -> None:
        setting.hold()
        futures = [setting.lanes.predict(image(value)) for value in range(6)]
        while sum(engine.entered for engine in (setting.whole, *setting.engines)) < 2:
            await asyncio.sleep(0.001)
        assert setting.lanes.waiting == 4
        setting.release()
        assert [row["pixel"].tolist() for row in await asyncio.gather(*futures)] == [[value] for value in range(6)]
        assert setting.lanes.waiting == 0

    run(test)


def test_a_full_queue_refuses_and_a_cancelled_image_is_never_computed() -> None:
    async def test(setting: Setting) -> None:
        setting.hold()
        futures = [setting.lanes.predict(image(value)) for value in range(5)]
        assert setting.lanes.full
        with pytest.raises(asyncio.QueueFull):
            setting.lanes.predict(image(9))
        futures[4].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not setting.lanes.full
        setting.release()
        await asyncio.gather(*futures[:4])

    setting = run(test, queue_length=3)
    assert sorted(setting.whole.seen + setting.engines[0].seen + setting.engines[1].seen) == [0, 1, 2, 3]


def test_an_engine_that_fails_fails_its_image_and_no_other() -> None:
    async def test(setting: Setting) -> None:
        results = await asyncio.gather(
            *(setting.lanes.predict(image(value)) for value in (255, 1, 255, 2)), return_exceptions=True
        )
        assert [str(result) for result in results[::2]] == ["broken", "broken"]
        assert [result["pixel"].tolist() for result in results[1::2] if isinstance(result, dict)] == [[1], [2]]
        assert (await setting.lanes.predict(image(3)))["pixel"].tolist() == [3]

    run(test)


def test_every_engine_is_warm_before_the_first_image() -> None:
    setting = Setting(9)
    setting.lanes.warm_up((2, 2, 1))
    setting.lanes.close()
    assert [engine.seen for engine in setting.engines] == [[0, 0, 0], [0, 0, 0]]


def test_images_that_do_not_come_to_their_end_are_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.serving.lanes.STALLED_S", 0.05)

    async def test(setting: Setting) -> None:
        assert not setting.lanes.stalled
        setting.hold()
        futures = [setting.lanes.predict(image(value)) for value in range(3)]
        await asyncio.sleep(0.01)
        assert not setting.lanes.stalled
        await asyncio.sleep(0.1)
        assert setting.lanes.stalled
        setting.release()
        await asyncio.gather(*futures)
        assert not setting.lanes.stalled

    run(test)
