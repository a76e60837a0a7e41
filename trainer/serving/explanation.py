"""Saliency maps for `/explain`, computed between other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine, Outputs
from trainer.artifact.explain import activation_map, load_activation_engine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.images.saliency import OCCLUSIONS, occlude, occlusion_sensitivity
from trainer.serving.memory import MemoryBudget

# Memory of the activation engine for each byte of its file: its weights in full precision, a second copy in the
# processor's layout, and its activations.
ENGINE_BYTES_PER_FILE_BYTE = 8

PredictMany = Callable[[NDArray[np.uint8]], Awaitable[Sequence[Outputs]]]  # [N,H,W,C], N at most a batch → N outputs


class Explainer:
    """Explains one model's answers: by a class-activation map where the artifact has one, else by occlusion.

    The activation engine is loaded for the first explanation: a server without any has its memory for requests.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: the artifact."""
        self._folder = folder
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._has_activation = (folder / EXPLAIN_FILE).is_file()

    @property
    def images(self) -> int:
        """Additional images that the network runs for an explanation."""
        return 1 if self._has_activation else OCCLUSIONS

    async def explain(
        self, pixels: NDArray[np.uint8], outputs: Outputs, predict_many: PredictMany, chunk: int, memory: MemoryBudget
    ) -> NDArray[np.float32]:
        """Saliency map [H,W] of the most probable class of an image [H,W,C], whose `outputs` are known.

        `predict_many` gets `chunk` images at a time. Raises MemoryError where there is none for the activation engine,
        and the errors of `predict_many`.
        """
        index = int(outputs[PROBABILITIES].argmax())
        if self._has_activation:
            return await asyncio.to_thread(self._activation_map, pixels, index, memory)
        occluded = await asyncio.to_thread(occlude, pixels)
        results: list[Outputs] = []
        for start in range(0, OCCLUSIONS, chunk):  # one after the other: other requests have their turn in between
            results += await predict_many(occluded[start : start + chunk])
        probabilities = np.array([result[PROBABILITIES][index] for result in results])
        return occlusion_sensitivity(float(outputs[PROBABILITIES][index]), probabilities, pixels.shape[:2])

    def _activation_map(self, pixels: NDArray[np.uint8], index: int, memory: MemoryBudget) -> NDArray[np.float32]:
        with self._loading:
            if self._engine is None:
                if not memory.take(ENGINE_BYTES_PER_FILE_BYTE * (self._folder / EXPLAIN_FILE).stat().st_size):
                    raise MemoryError
                self._engine = load_activation_engine(self._folder, threads=1)  # predictions come first
            assert self._engine
            return activation_map(pixels, index, self._engine)
