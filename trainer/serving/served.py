"""The model that requests are answered with, in one piece."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.artifact import Artifact
from trainer.artifact.engine import load_engine
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus
from trainer.serving.admission import Admission
from trainer.serving.explanation import Explainer
from trainer.serving.lanes import Lanes
from trainer.serving.runner import OnBatch, Runner
from trainer.serving.settings import Settings

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

SLOWEST_BATCH = 0.25  # of the deadline: a batch that takes longer leaves no room to wait for it
# How many times as much work engines with one thread each have to be, which do not wait for each other or for what
# their CPUs do in between.
WORTH_BATCHING = 1.25
LONG_IMAGE_CPU_S = 0.002  # below it there is little to wait for


@dataclass(frozen=True)
class Served:
    """All that depends on the model. A request keeps the one that it began with, to its end."""

    tag: str  # NAME:VERSION
    class_names: tuple[str, ...]
    pixels: PixelSpec
    threshold: float | None  # the probability from which on an answer is known; None: an old model has none
    metrics: Mapping[str, Any]  # as `fit` measured them
    runner: Runner | Lanes
    admission: Admission
    explainer: Explainer


def make_served(tag: str, artifact: Artifact, settings: Settings, on_batch: OnBatch) -> Served:
    """The model `tag` with a runner of its own, warm. `on_batch` as in `Runner`."""
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    engine = load_engine(artifact, settings.engine, threads)
    pixels = artifact.pixels
    shape = (pixels.height, pixels.width, pixels.channels)
    runner: Runner | Lanes
    runner = batching = Runner(
        engine,
        shape,
        queue_length=settings.queue_length,
        spare_cpu=available_cpus() > settings.workers,
        on_batch=on_batch,
    )
    batching.warm_up(slowest=SLOWEST_BATCH * settings.deadline_ms / 1000)
    # TensorFlow's threads are those of the process.
    if batching.alone_cpu_s >= LONG_IMAGE_CPU_S and threads > 1 and settings.engine == "litert":
        engines = [load_engine(artifact, settings.engine, 1) for _ in range(threads)]
        lanes = Lanes(engine, engines, queue_length=settings.queue_length, on_batch=on_batch)
        lanes.warm_up(shape)
        runner = lanes if lanes.image_cpu_s < WORTH_BATCHING * batching.image_cpu_s else batching
        (batching if runner is lanes else lanes).close()
    how = f"{threads} images at once" if isinstance(runner, Lanes) else f"batches of up to {runner.largest_batch}"
    log.info("serving %s on %s with %d threads, %s", tag, settings.engine, threads, how)
    gain = runner.alone_cpu_s / runner.image_cpu_s
    admission = Admission(settings.deadline_ms / 1000, image_s=runner.alone_cpu_s, gain=gain)
    explainer = Explainer(artifact.path)
    return Served(tag, artifact.class_names, pixels, artifact.threshold, artifact.metrics, runner, admission, explainer)
