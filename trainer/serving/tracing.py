"""OpenTelemetry traces: a span for each request, sent by OTLP to the collector that the standard variables name.

Without such a variable nothing of OpenTelemetry is imported here and no middleware is added. A thread of the SDK sends
the spans in batches, from a queue that drops spans when it is full: no request waits for the collector.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.errors import InputError
from trainer.serving.middleware import OPEN_PATHS, normalized
from trainer.serving.open_inference_paths import route_of

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.trace import Span

PREFIXES = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")  # the first wins
PROTOCOL = "http/protobuf"
SERVICE_NAME = "classifier"  # as the service is called in service.py; OTEL_SERVICE_NAME wins
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # others share a name: clients invent them
STOP_S = 1.0  # in which a stopping server sends its last spans


def traces_wanted() -> bool:
    """Whether the environment names a collector."""
    _, endpoint = _variable("ENDPOINT")
    return bool(endpoint) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def check_tracing() -> None:
    """Raise InputError, one line, if traces are wanted and cannot be sent. (The SDK warns of other wrong variables.)"""
    if not traces_wanted():
        return
    name, endpoint = _variable("ENDPOINT")
    if not endpoint.startswith(("http://", "https://")) or not urlsplit(endpoint).hostname:
        raise InputError(f"{name}: {endpoint!r} is no address of a collector, such as http://localhost:4318")
    name, protocol = _variable("PROTOCOL")
    if protocol not in ("", PROTOCOL):
        raise InputError(f"{name}: {protocol!r} is not supported; {PROTOCOL} is expected, at a collector's port 4318")
    try:
        _exporter_class()
    except ImportError:
        raise InputError(
            f"{_variable('ENDPOINT')[0]} is set, and the extra `tracing` is not installed: pip install --editable "
            "'.[tracing]' in the project's folder; for an image, bentoml containerize … --opt build-arg=TRACING=1"
        ) from None


class Tracing:
    """The spans of one worker."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk import resources
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        exporter = _exporter_class()()
        # Of a collector that is gone, an error for each batch is enough; a warning for each attempt is not needed.
        logging.getLogger(type(exporter).__module__).setLevel(logging.ERROR)
        default = resources.Resource.create({resources.SERVICE_NAME: SERVICE_NAME})
        resource = default.merge(resources.OTELResourceDetector().detect())
        # Not at exit: it would wait half a minute for a collector that is gone.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(__name__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def span(self, method: str, route: str | None, headers: Headers) -> AbstractContextManager[Span]:
        """A span, current inside; the child of a `traceparent` in the headers, which also decides if it is recorded.

        `route`: None for a path that is no endpoint.
        """
        method = method if method in METHODS else "_OTHER"
        attributes = {"http.request.method": method} | ({"http.route": route} if route else {})
        return self._tracer.start_as_current_span(
            f"{method} {route}" if route else method,
            context=self._propagator.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        )

    def add_event(self, name: str) -> None:
        """Record an event, with the time, in the current request's span."""
        self._trace.get_current_span().add_event(name)

    def set_status(self, span: Span, status: int) -> None:
        """Record the HTTP status; from 500 on the span is an error."""
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    async def stop(self) -> None:
        """Send the last spans, for `STOP_S` at most."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, STOP_S)


class TraceMiddleware:
    """ASGI middleware: a span for each request, except health checks."""

    def __init__(self, app: ASGIApp, tracing: Tracing, routes: Callable[[], Container[str]]) -> None:
        """`routes` is called for each request: the service does not exist yet when middleware is added."""
        self._app = app
        self._tracing = tracing
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = normalized(scope["path"]) if scope["type"] == "http" else None
        if path is None or path in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        route = route_of(path)
        name = route if route in self._routes() else None
        with self._tracing.span(scope["method"], name, Headers(scope=scope)) as span:

            async def record_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._tracing.set_status(span, message["status"])
                await send(message)

            await self._app(scope, receive, record_status)


def _variable(suffix: str) -> tuple[str, str]:
    """Name and value of the standard variable that counts; an empty one is as good as none."""
    names = [f"{prefix}{suffix}" for prefix in PREFIXES]
    name = next((name for name in names if os.environ.get(name)), names[-1])
    return name, os.environ.get(name, "")


def _exporter_class() -> type[OTLPSpanExporter]:
    """Raises ImportError without the extra `tracing`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter
