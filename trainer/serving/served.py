"""The model that requests are answered with, in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.artifact import Artifact
from trainer.artifact.engine import Engine
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus
from trainer.serving.runner import Runner
from trainer.serving.settings import Settings


@dataclass(frozen=True)
class Served:
    """All that depends on the model. A request keeps the one that it began with, to its end."""

    tag: str  # NAME:VERSION
    labels: tuple[str, ...]
    pixels: PixelSpec
    metrics: Mapping[str, Any]  # as `fit` measured them
    runner: Runner


def make_served(
    tag: str, artifact: Artifact, engine: Engine, settings: Settings, on_batch: Callable[[int, float, int], None]
) -> Served:
    """The model `tag` with a runner of its own, not yet warm. `on_batch` as in `Runner`."""
    pixels = artifact.pixels
    runner = Runner(
        engine,
        (pixels.height, pixels.width, pixels.channels),
        queue_length=settings.queue_length,
        spare_cpu=available_cpus() > settings.workers,
        on_batch=on_batch,
    )
    return Served(tag, artifact.labels, pixels, artifact.metrics, runner)
