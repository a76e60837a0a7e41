"""The model that requests are answered with: its classes, pixels and threshold, and its warm runner."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.artifact import Artifact
from trainer.artifact.engine import load_engine
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus, cpu_flags
from trainer.serving.admission import Admission
from trainer.serving.batching import BatchRunner
from trainer.serving.explanation import Explainer
from trainer.serving.parallel import ParallelRunner
from trainer.serving.runner import OnBatch, Runner
from trainer.serving.settings import Settings

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

MAX_BATCH_SHARE = 0.25  # of the deadline: a longer batch leaves no time to wait for it
# Parallel engines are chosen up to this many times the CPU time of batches: they do not wait for each other, nor for
# other work of their CPUs.
PARALLEL_BONUS = 1.25
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}  # without them, static-int8 is slower than float32
MIN_PARALLEL_CPU_S = 0.002  # of an image; a quicker network has little to wait for


@dataclass(frozen=True)
class LoadedModel:
    """Everything that depends on the model. A request keeps the one that it began with."""

    tag: str  # NAME:VERSION
    class_names: tuple[str, ...]
    pixels: PixelSpec
    threshold: float | None  # lowest probability of a known answer; None: an old model has none
    metrics: Mapping[str, Any]  # as `fit` measured them
    runner: Runner
    admission: Admission
    explainer: Explainer


def prepare_model(tag: str, artifact: Artifact, settings: Settings, on_batch: OnBatch) -> LoadedModel:
    """Load the engines of the model `tag`, warm them up, and choose batches or parallel engines."""
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    runner = _choose_runner(artifact, settings, threads, on_batch)
    parallel = isinstance(runner, ParallelRunner)
    how = f"{threads} images at once" if parallel else f"batches of up to {runner.largest_batch}"
    log.info("serving %s on %s with %d threads, %s", tag, settings.engine, threads, how)
    flags = cpu_flags()
    if artifact.quantization == "static-int8" and "avx2" in flags and not flags & INT8_FLAGS:
        log.warning("%s is static-int8, and this processor has no int8 instructions: `--quantize none` is faster", tag)
    gain = runner.alone_cpu_s / runner.image_cpu_s
    return LoadedModel(
        tag,
        artifact.class_names,
        artifact.pixels,
        artifact.threshold,
        artifact.metrics,
        runner,
        Admission(settings.deadline_ms / 1000, image_s=runner.alone_cpu_s, gain=gain),
        Explainer(artifact.path),
    )


def _choose_runner(artifact: Artifact, settings: Settings, threads: int, on_batch: OnBatch) -> Runner:
    """The runner that takes less CPU time for an image when many come at once; the other one is closed."""
    engine = load_engine(artifact, settings.engine, threads)
    shape = (artifact.pixels.height, artifact.pixels.width, artifact.pixels.channels)
    queue_length = settings.queue_length
    spare_cpu = available_cpus() > settings.workers
    batching = BatchRunner(engine, shape, queue_length=queue_length, spare_cpu=spare_cpu, on_batch=on_batch)
    batching.warm_up(MAX_BATCH_SHARE * settings.deadline_ms / 1000)
    # Not with TensorFlow: its threads are the process's.
    if batching.alone_cpu_s < MIN_PARALLEL_CPU_S or threads == 1 or settings.engine != "litert":
        return batching
    engines = [load_engine(artifact, settings.engine, 1) for _ in range(threads)]
    parallel = ParallelRunner(engine, engines, queue_length=queue_length, on_batch=on_batch)
    parallel.warm_up(shape)
    if parallel.image_cpu_s < PARALLEL_BONUS * batching.image_cpu_s:
        batching.close()
        return parallel
    parallel.close()
    return batching
