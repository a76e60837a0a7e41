"""Decoding of images: small ones on the event loop, others in threads, once there is memory for them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ImageError
from trainer.images.decode import EncodedImage
from trainer.images.encode import encode_png
from trainer.images.formats import format_of
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.request import MAX_IMAGE_BYTES, MIB
from trainer.serving.responses import ApiError
from trainer.serving.runner import STALLED_S, RunningCalls

# More pixels take about a millisecond to decode: not on the event loop, where all other requests would wait.
MAX_PIXELS_ON_LOOP = 100_000
# Reading the header of more bytes may take as long; so may the formats that come from films, whatever their size.
MAX_BYTES_ON_LOOP = 16 << 10
FORMATS_ON_LOOP = ("JPEG", "PNG", "WebP", "BMP", "GIF")

Pixels = NDArray[np.uint8]  # [H,W,C]


class Decoder:
    """Decodes images within the memory budget. Its threads are those of one worker."""

    def __init__(self, memory: MemoryBudget, metrics: Metrics) -> None:
        self._memory = memory
        self._metrics = metrics
        self._thread_count = available_cpus()
        self._threads = ThreadPoolExecutor(self._thread_count, "decode")
        self._calls = RunningCalls()

    @property
    def stalled(self) -> bool:
        """Whether no thread's decoder returns."""
        return self._calls.older_than(STALLED_S) == self._thread_count

    async def decode(self, data: bytes, spec: PixelSpec, charged: int = 0) -> Pixels:
        """Encoded image → uint8 [H,W,C]. It waits for memory as long as the caller does.

        `charged` is what the request holds of the memory budget. Raises ApiError `too_large`, and ImageError.
        """
        if len(data) > MAX_IMAGE_BYTES:
            raise ApiError("too_large", f"the image is too large: at most {MAX_IMAGE_BYTES // MIB} MiB are read")
        start = time.perf_counter()
        image = EncodedImage(data) if len(data) <= MAX_BYTES_ON_LOOP and format_of(data) in FORMATS_ON_LOOP else None
        if image and image.info.width * image.info.height <= MAX_PIXELS_ON_LOOP:
            pixels = image.decode(spec)
        else:
            pixels = await self._decode_in_thread(data, spec, charged)
        self._metrics.decode_seconds.observe(time.perf_counter() - start)
        return pixels

    async def encode(self, image: Pixels) -> bytes:
        """uint8 [H,W,C] → PNG."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, encode_png, image)

    async def _decode_in_thread(self, data: bytes, spec: PixelSpec, charged: int) -> Pixels:
        loop = asyncio.get_running_loop()
        image, needed, pixels = await loop.run_in_executor(self._threads, self._try_decode, data, spec)
        if pixels is not None:
            return pixels
        if needed > self._memory.size - charged:
            size = f"{image.info.width}x{image.info.height}"
            budget = f"{needed // MIB} MiB are needed to decode it, and this server has {self._memory.size // MIB}"
            raise ImageError("too_many_pixels", f"{size} has too many pixels for this server: {budget}")
        await self._memory.acquire(needed)  # no thread waits: they are for images that have their memory
        decoding = self._threads.submit(self._decode, image, spec)
        # Given back by the thread, which goes on if the request is cancelled.
        decoding.add_done_callback(lambda _: self._memory.give_back(needed))
        return await asyncio.wrap_future(decoding)

    def _try_decode(self, data: bytes, spec: PixelSpec) -> tuple[EncodedImage, int, Pixels | None]:
        """The image, the bytes that decoding it takes, and its pixels if these bytes are free now; runs in a thread."""
        with self._calls.track():
            image = EncodedImage(data)
            needed = image.decoding_bytes(spec)
        if not self._memory.take_in_turn(needed):
            return image, needed, None
        try:
            return image, needed, self._decode(image, spec)
        finally:
            self._memory.give_back(needed)

    def _decode(self, image: EncodedImage, spec: PixelSpec) -> Pixels:
        with self._calls.track():
            return image.decode(spec)
