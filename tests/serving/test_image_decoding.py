from __future__ import annotations

import asyncio
import io
import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.errors import ImageError
from trainer.images.decode import EncodedImage, decode
from trainer.images.pixels import PixelSpec
from trainer.serving.decoding import Decoder
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics

SPEC = PixelSpec(28, 28, 1)


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


LARGE, SMALL = png(1200), png(400)  # both are decoded in threads


def test_an_image_that_never_fits_is_refused_at_once(metrics: Metrics) -> None:
    needed = EncodedImage(LARGE).decoding_bytes(SPEC)
    budget = MemoryBudget(needed)
    decoder = Decoder(budget, metrics)
    np.testing.assert_array_equal(asyncio.run(decoder.decode(LARGE, SPEC)), decode(LARGE, SPEC))
    assert budget.take(1)  # the body of the same request
    with pytest.raises(ImageError, match="1200x1200") as caught:
        asyncio.run(decoder.decode(LARGE, SPEC, charged=1))
    assert caught.value.code == "too_many_pixels"
    assert budget.take(needed - 1)


def test_images_that_wait_for_memory_hold_no_thread(metrics: Metrics) -> None:
    large, small = (EncodedImage(data).decoding_bytes(SPEC) for data in (LARGE, SMALL))
    budget = MemoryBudget(large + small)
    decoder = Decoder(budget, metrics)

    async def test() -> None:
        assert budget.take(large + small - 1)  # not enough for either
        waiting = [asyncio.create_task(decoder.decode(LARGE, SPEC)) for _ in range(20)]
        await asyncio.sleep(0.2)
        assert len(await asyncio.wait_for(decoder.encode(np.zeros((8, 8, 1), np.uint8)), 5)) > 0
        for task in waiting[1:]:
            task.cancel()
        budget.give_back(large + small - 1)
        assert (await asyncio.wait_for(waiting[0], 5)).shape == (28, 28, 1)

    asyncio.run(test())
    assert budget.take(large + small)


def test_a_cancelled_image_is_charged_until_its_thread_ends(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    may_decode = threading.Event()
    original = EncodedImage.decode

    def held_decode(image: EncodedImage, spec: PixelSpec) -> NDArray[np.uint8]:
        assert may_decode.wait(10)
        return original(image, spec)

    monkeypatch.setattr(EncodedImage, "decode", held_decode)
    needed = EncodedImage(LARGE).decoding_bytes(SPEC)
    budget = MemoryBudget(needed)
    decoder = Decoder(budget, metrics)

    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await decoder.decode(LARGE, SPEC)
        assert not budget.take(1)
        may_decode.set()
        await asyncio.wait_for(budget.acquire(needed), 5)

    asyncio.run(test())
