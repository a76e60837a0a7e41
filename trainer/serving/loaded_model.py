"""The model that requests are answered with: its classes, pixels and threshold, and its warm runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.artifact import Artifact
from trainer.artifact.engine import Engine, load_engine
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus, cpu_flags
from trainer.serving.admission import Admission
from trainer.serving.batching import BatchRunner
from trainer.serving.explanation import Explainer
from trainer.serving.parallel import ParallelRunner
from trainer.serving.runner import Measured, OnBatch, Runner
from trainer.serving.settings import Settings

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

MAX_BATCH_SHARE = 0.25  # of the deadline: a longer batch leaves no time to wait for it
# Parallel engines are chosen up to this many times the CPU time of batches: they do not wait for each other, nor for
# other work of their CPUs.
PARALLEL_BONUS = 1.25
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}  # without them, static-int8 is slower than float32
MIN_PARALLEL_CPU_S = 0.002  # of an image; a quicker network has little to wait for
PAUSE_S = 0.25  # between two engines that are loaded beside requests: those that waited are answered first


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


@dataclass(frozen=True)
class FailedVersion:
    """A version that is promoted and not served, as it did not pass its check."""

    tag: str  # NAME:VERSION
    reason: str  # one line, without a path


def prepare_model(
    tag: str, artifact: Artifact, settings: Settings, on_batch: OnBatch, measured: Measured | None = None
) -> LoadedModel:
    """Load the engines of the model `tag`, warm them up, and choose batches or parallel engines.

    `measured`: results of `choose_runner` in another process. The choice is taken from there, as this process answers
    requests meanwhile: their CPU time would be measured, too.
    """
    threads = engine_threads(settings)
    if measured:
        runner = _rebuild_runner(artifact, settings, on_batch, measured)
    else:
        runner = choose_runner(artifact, settings, on_batch)
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


def engine_threads(settings: Settings) -> int:
    """Threads of one worker's engine."""
    return settings.threads or max(1, available_cpus() // settings.workers)


def choose_runner(artifact: Artifact, settings: Settings, on_batch: OnBatch) -> Runner:
    """The runner that takes less CPU time for an image when many come at once, warm; the other one is closed."""
    threads = engine_threads(settings)
    engine = load_engine(artifact, settings.engine, threads)
    batching = _in_batches(engine, artifact, settings, on_batch)
    batching.warm_up(MAX_BATCH_SHARE * settings.deadline_ms / 1000)
    # Not with TensorFlow: its threads are the process's.
    if batching.alone_cpu_s < MIN_PARALLEL_CPU_S or threads == 1 or settings.engine != "litert":
        return batching
    engines = [load_engine(artifact, settings.engine, 1) for _ in range(threads)]
    parallel = ParallelRunner(engine, engines, queue_length=settings.queue_length, on_batch=on_batch)
    parallel.warm_up(artifact.pixels.shape)
    if parallel.image_cpu_s < PARALLEL_BONUS * batching.image_cpu_s:
        batching.close()
        return parallel
    parallel.close()
    return batching


def _rebuild_runner(artifact: Artifact, settings: Settings, on_batch: OnBatch, measured: Measured) -> Runner:
    """The runner that was `measured` in another process, warm.

    Each engine runs its largest batch: the memory is then allocated, and any other size takes 0.1 ms to set up.
    """
    threads = engine_threads(settings)
    largest = np.zeros((max(measured.batch_cpu_s), *artifact.pixels.shape), np.uint8)
    engines = []
    for count in (threads, *([1] * threads if measured.parallel else ())):
        engines.append(load_engine(artifact, settings.engine, count))
        time.sleep(PAUSE_S)
        engines[-1].predict(largest)
    if not measured.parallel:
        return _in_batches(engines[0], artifact, settings, on_batch, measured)
    return ParallelRunner(
        engines[0], engines[1:], queue_length=settings.queue_length, on_batch=on_batch, measured=measured
    )


def _in_batches(
    engine: Engine, artifact: Artifact, settings: Settings, on_batch: OnBatch, measured: Measured | None = None
) -> BatchRunner:
    return BatchRunner(
        engine,
        artifact.pixels.shape,
        queue_length=settings.queue_length,
        spare_cpu=available_cpus() > settings.workers,
        on_batch=on_batch,
        measured=measured,
    )
