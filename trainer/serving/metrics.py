"""Prometheus metrics, shown at /metrics. No label comes from a client: there is a series for each code, endpoint and
version of the model."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import psutil

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SHARE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.85, 1.0)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one worker. Several workers add theirs up through files in `folder`; None: a single worker."""

    def __init__(self, model: str, folder: str | None) -> None:
        # prometheus_client reads this once, when it is imported. BentoML sets it to a folder that all servers of a
        # user share, and which each empties when it starts.
        os.environ.pop(MULTIPROCESS_DIR, None)
        if folder:
            os.environ[MULTIPROCESS_DIR] = folder
        from prometheus_client import Counter, Gauge, Histogram

        requests = Counter("trainer_requests", "Requests answered", ["endpoint", "code"])
        self._requests_of = functools.cache(requests.labels)
        self._unknown = Counter("trainer_unknown", "Images whose answer is not known to be right (known: false)")
        latency = Histogram(
            "trainer_request_seconds", "From the request's head to its answer", ["endpoint"], buckets=SECONDS_BUCKETS
        )
        self._latency_of = functools.cache(latency.labels)
        self.decode_seconds = Histogram("trainer_decode_seconds", "Decoding one image", buckets=SECONDS_BUCKETS)
        self._engine_seconds = Histogram(
            "trainer_engine_seconds", "The engine's time for a batch", buckets=SECONDS_BUCKETS
        )
        self._deadline_share = Histogram(
            "trainer_deadline_share", "Share of the deadline until the answer; 1: too late", buckets=SHARE_BUCKETS
        )
        self._batch_size = Histogram("trainer_batch_size", "Images in a batch", buckets=BATCH_SIZE_BUCKETS)
        self._waiting = Gauge("trainer_queue_depth", "Images that wait for the engine", multiprocess_mode="livesum")
        # Gauges: Prometheus' own info metrics do not work with several processes.
        self._model = Gauge("trainer_model_info", "1: the model that is served", ["model"], multiprocess_mode="livemax")
        self._failed = Gauge(
            "trainer_model_failed", "1: promoted, but not fit to serve", ["model"], multiprocess_mode="livemax"
        )
        self._model.labels(model).set(1)

    def on_request(self, endpoint: str, code: int, seconds: float) -> None:
        self._requests_of(endpoint, code).inc()
        self._latency_of(endpoint).observe(seconds)

    def on_deadline_share(self, share: float) -> None:
        self._deadline_share.observe(share)

    def on_unknown(self) -> None:
        self._unknown.inc()

    def on_batch(self, size: int, seconds: float) -> None:
        self._batch_size.observe(size)
        self._engine_seconds.observe(seconds)

    def on_swap(self, old: str, new: str) -> None:
        """Count `new` as the model that is served. The series of `old` stays, at 0."""
        self._model.labels(new).set(1)
        self._model.labels(old).set(0)

    def on_failed_version(self, model: str, *, failed: bool) -> None:
        self._failed.labels(model).set(failed)

    def on_waiting(self, images: int) -> None:
        self._waiting.set(images)

    def render(self) -> bytes:
        """Metrics of all workers, as text."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest()
        for file in Path(os.environ[MULTIPROCESS_DIR]).glob("gauge_live*.db"):
            process = int(file.stem.rpartition("_")[2])
            if not psutil.pid_exists(process):  # killed: its images no longer wait
                mark_process_dead(process)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
