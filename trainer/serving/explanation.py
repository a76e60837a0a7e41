"""Saliency maps for `/explain`, computed between other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Outputs
from trainer.artifact.explain import activation_map, load_activation_engine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.images.saliency import OCCLUSIONS, occlude, occlusion_sensitivity
from trainer.serving.memory import MemoryBudget
from trainer.serving.request import MIB
from trainer.serving.responses import ApiError

# Memory of the activation engine for each byte of its file: its weights in full precision, a second copy in the
# processor's layout, and its activations.
ENGINE_BYTES_PER_FILE_BYTE = 8

PredictMany = Callable[[NDArray[np.uint8]], Awaitable[Sequence[Outputs]]]  # [N,H,W,C], N at most a batch → N outputs


class Explainer:
    """Explains one model's answers: by a class-activation map where the artifact has one, else by occlusion.

    The activation engine is loaded for each explanation, which takes 20 ms, and charged as long: before and after,
    other requests have its memory.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: the artifact."""
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "explain")

    @property
    def _has_activation(self) -> bool:
        """Whether there is an activation engine; none any more where the version was deleted while it is served."""
        return (self._folder / EXPLAIN_FILE).is_file()

    @property
    def images(self) -> int:
        """Additional images that the network runs for an explanation."""
        return 1 if self._has_activation else OCCLUSIONS

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    async def explain(
        self,
        pixels: NDArray[np.uint8],
        outputs: Outputs,
        predict_many: PredictMany,
        chunk: int,
        memory: MemoryBudget,
        charged: int = 0,
    ) -> NDArray[np.float32]:
        """Saliency map [H,W] of the most probable class of an image [H,W,C], whose `outputs` are known.

        `predict_many` gets `chunk` images at a time; `charged` is what the request holds of the memory budget. Raises
        ApiError `not_found` where the budget can never hold the activation engine, and the errors of `predict_many`.
        """
        index = int(outputs[PROBABILITIES].argmax())
        if self._has_activation:
            return await self._explain_with_engine(pixels, index, memory, charged)
        occluded = await asyncio.to_thread(occlude, pixels)
        results: list[Outputs] = []
        for start in range(0, OCCLUSIONS, chunk):  # one after the other: other requests have their turn in between
            results += await predict_many(occluded[start : start + chunk])
        probabilities = np.array([result[PROBABILITIES][index] for result in results])
        return occlusion_sensitivity(float(outputs[PROBABILITIES][index]), probabilities, pixels.shape[:2])

    async def _explain_with_engine(
        self, pixels: NDArray[np.uint8], index: int, memory: MemoryBudget, charged: int
    ) -> NDArray[np.float32]:
        needed = ENGINE_BYTES_PER_FILE_BYTE * (self._folder / EXPLAIN_FILE).stat().st_size
        if needed > memory.size - charged:
            sizes = f"{needed // MIB} MiB are needed for it, and this server has {memory.size // MIB} for all requests"
            raise ApiError("not_found", f"this server has too little memory for an explanation: {sizes}")
        async with self._one_at_a_time:
            await memory.acquire(needed)
            explaining = self._thread.submit(self._activation_map, pixels, index)
            # Given back by the thread, which goes on if the request is cancelled.
            explaining.add_done_callback(lambda _: memory.give_back(needed))
            return await asyncio.wrap_future(explaining)

    def _activation_map(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32]:
        engine = load_activation_engine(self._folder, threads=1)  # predictions come first
        if engine is None:
            raise FileNotFoundError(EXPLAIN_FILE)
        return activation_map(pixels, index, engine)
