"""`/explain`: the heat of what spoke for an answer, as other work leaves room for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine, Outputs
from trainer.artifact.explain import activation_heat_of, load_activation_engine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.images.heat import COVERS, cover, cover_heat
from trainer.serving.memory import Memory

# What the activation engine takes of memory for each byte of its file: its weights in full precision, once more as the
# processor likes them, and what it computes.
LOADED = 8

Together = Callable[[NDArray[np.uint8]], Awaitable[Sequence[Outputs]]]  # [N,H,W,C], N at most a batch → N outputs


class Explainer:
    """Explains one model's answers. The engine that a network with pooled features needs is loaded when it is first
    asked for, so that a server that never is has its memory for requests.
    """

    def __init__(self, folder: Path) -> None:
        """Of the artifact in `folder`."""
        self._folder = folder
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._pools = (folder / EXPLAIN_FILE).is_file()

    @property
    def images(self) -> int:
        """How many more images the network is asked about for an explanation."""
        return 1 if self._pools else COVERS

    async def explain(
        self, pixels: NDArray[np.uint8], outputs: Outputs, run_together: Together, chunk: int, memory: Memory
    ) -> NDArray[np.float32]:
        """The heat [H,W] of the most probable class of an image [H,W,C], whose `outputs` are known.

        `run_together` is asked about `chunk` images at a time. Raises MemoryError where there is none for the engine,
        and what `run_together` raises.
        """
        index = int(outputs[PROBABILITIES].argmax())
        if self._pools:
            return await asyncio.to_thread(self._activation_heat, pixels, index, memory)
        covered = await asyncio.to_thread(cover, pixels)
        answers: list[Outputs] = []
        # One chunk after the other, so that others have their turn in between.
        for start in range(0, COVERS, chunk):
            answers += await run_together(covered[start : start + chunk])
        falls = np.array([answer[PROBABILITIES][index] for answer in answers])
        return cover_heat(float(outputs[PROBABILITIES][index]), falls, pixels.shape[:2])

    def _activation_heat(self, pixels: NDArray[np.uint8], index: int, memory: Memory) -> NDArray[np.float32]:
        with self._loading:
            if self._engine is None:  # with one thread: answers come first
                if not memory.take(LOADED * (self._folder / EXPLAIN_FILE).stat().st_size):
                    raise MemoryError
                self._engine = load_activation_engine(self._folder, threads=1)
            assert self._engine
            return activation_heat_of(pixels, index, self._engine)
