"""Traces, with a collector of OpenTelemetry's protocol on loopback."""

from __future__ import annotations

import http.server
import io
import socket
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from expected_answers import encoded
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from PIL import Image
from server import environment, form, publish, serve_until_exit, serving

from trainer.cli import run
from trainer.errors import InputError
from trainer.serving.tracing import check_tracing, traces_wanted

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Collector(http.server.ThreadingHTTPServer):
    """Collector that decodes what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        """In the order of their ends."""
        scopes = [scope for got in self.received for each in got.resource_spans for scope in each.scope_spans]
        return sorted((span for scope in scopes for span in scope.spans), key=lambda span: span.end_time_unix_nano)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = zlib.decompress(body, wbits=31)
        assert (self.path, self.headers["Authorization"]) == ("/v1/traces", "Basic eA==")
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def black_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (28, 28)).save(buffer, "PNG")
    return buffer.getvalue()


def attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_each_request_has_a_span(collector: Collector, infinite_artifact: Path, tmp_path: Path) -> None:
    standard: dict[str, Any] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20eA==",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "600000",  # longer than the test: the spans come at the stop
    }
    with serving(infinite_artifact, tmp_path, **standard) as server:
        black = black_image()

        def ask(method: str, path: str, body: bytes | None = None, content_type: str = "", *, flags: str = "01") -> int:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", "tracestate": "vendor=1"}
            return server.ask(method, path, body, content_type, headers).status

        assert ask("POST", "/predict", black) == 200
        assert ask("POST", "/predict", black, flags="00") == 200  # the caller records no trace
        assert ask("POST", "/predict_batch/", *form(("images", black), ("images", black))) == 200
        assert ask("POST", "/predict", encoded()) == 500
        assert ask("GET", "/v2/models/made-up") == 404
        assert ask("GET", "/made-up") == 404
        assert ask("PROPFIND", "/made-up") == 404
        assert server.ask("GET", "/model").status == 200
        assert [ask("GET", path) for path in ("/livez", "/readyz", "/readyz/")] == [200] * 3
        assert collector.received == []
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert "/made-up 404 not_found" in server.log.read_text()
        assert server.log.read_text().count(f"traceparent=00-{TRACE}-{PARENT}-01") == 4

    *with_parent, own = collector.spans
    assert [(span.name, *attributes(span).values()) for span in collector.spans] == [
        ("POST /predict", "POST", "/predict", 200),
        ("POST /predict_batch", "POST", "/predict_batch", 200),
        ("POST /predict", "POST", "/predict", 500),
        ("GET /v2/models/{name}", "GET", "/v2/models/{name}", 404),
        ("GET", "GET", 404),
        ("_OTHER", "_OTHER", 404),
        ("GET /model", "GET", "/model", 200),
    ]
    assert list(attributes(own)) == ["http.request.method", "http.route", "http.response.status_code"]
    assert {(span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) for span in with_parent} == {
        (TRACE, PARENT, "vendor=1")
    }
    assert (own.parent_span_id, own.trace_id.hex() != TRACE) == (b"", True)
    assert {span.kind for span in collector.spans} == {Span.SPAN_KIND_SERVER}
    errors = [span for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert errors == [with_parent[2]]
    stages = ["admitted", "decoded", "computed"]
    assert [event.name for event in with_parent[0].events] == stages
    assert sorted(event.name for event in with_parent[1].events) == sorted(stages * 2)
    times = [event.time_unix_nano for event in with_parent[0].events]
    assert times == sorted(times)
    assert with_parent[0].start_time_unix_nano <= times[0]
    assert times[-1] <= with_parent[0].end_time_unix_nano
    (resource,) = collector.received[0].resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["deployment.environment.name"]) == ("classifier", "test")


def test_a_collector_that_hangs_or_is_gone_changes_no_answer(tiny_artifact: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        standard: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "1000",  # seconds, in Python's SDK
            "OTEL_BSP_MAX_QUEUE_SIZE": "4",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2",
        }
        with serving(tiny_artifact, tmp_path, **standard) as server:
            assert [server.predict(encoded()).status for _ in range(20)] == [200] * 20
            connection, _ = silent.accept()
            assert connection.recv(18) == b"POST /v1/traces HT"
            silent.close()
            connection.close()
            assert [server.predict(encoded()).status for _ in range(20)] == [200] * 20
            server.process.terminate()
            assert server.process.wait(20) == 0
            assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4318' is no address",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://' is no address",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not supported; http/protobuf is expected",
        ),
    ],
)
def test_wrong_variables_are_refused(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        check_tracing()
    assert str(caught.value).startswith(message)


def test_traces_are_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not traces_wanted()
    monkeypatch.setitem(sys.modules, EXPORTER, None)  # not installed
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert not traces_wanted()
    check_tracing()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    assert traces_wanted()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    assert not traces_wanted()
    check_tracing()


def test_a_start_without_the_extra_ends_with_the_command_that_installs_it(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{EXPORTER!r}] = None")
    expected = "ENDPOINT is set, and the extra `tracing` is not installed: pip install --editable '.[tracing]'"
    home = tmp_path / "home"
    publish(tiny_artifact, home)
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "PYTHONPATH": str(tmp_path)}
    done = serve_until_exit(environment(home) | variables)
    assert done.returncode == 2
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr

    monkeypatch.setitem(sys.modules, EXPORTER, None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv("BENTOML_HOME", str(home))
    assert run(["serve", "tiny"]) == 2
    assert expected in capsys.readouterr().err
