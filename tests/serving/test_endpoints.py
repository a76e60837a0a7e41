"""Routes, refusals, metrics and log of a running tiny_server."""

from __future__ import annotations

import http.client
import re
import time
import zlib
from collections.abc import Iterator

import pytest
from expected_answers import encoded
from server import Server, form
from tiny_model import CLASS_NAMES, THRESHOLD

from trainer.serving.request import MIB


def png_with_header_size(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size, under a right checksum."""
    data = encoded()
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def with_a_wrong_checksum(png: bytes) -> bytes:
    position = png.index(b"IDAT") + 10
    return png[:position] + bytes([png[position] ^ 1]) + png[position + 1 :]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"", 400, "empty_body", id="empty"),
        pytest.param(b"hello", 415, "unsupported_type", id="text"),
        pytest.param(b"http://127.0.0.1:1/x.png", 415, "unsupported_type", id="URL"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_type", id="SVG"),
        pytest.param(b"II*\0" + bytes(100), 415, "unsupported_type", id="TIFF"),
        pytest.param(b"\x80\x04\x95" + bytes(100), 415, "unsupported_type", id="pickle"),
        pytest.param(encoded("JPEG")[:-200], 422, "corrupt_image", id="truncated JPEG"),
        pytest.param(encoded()[:-200], 422, "corrupt_image", id="truncated PNG"),
        pytest.param(with_a_wrong_checksum(encoded()), 422, "corrupt_image", id="PNG checksum"),
        pytest.param(png_with_header_size(30_000, 30_000), 413, "too_many_pixels", id="30,000x30,000"),
        pytest.param(encoded() + bytes(11 * MIB), 413, "too_large", id="11 MiB"),
    ],
)
def test_bad_images_are_refused_with_a_code(tiny_server: Server, body: bytes, status: int, code: str) -> None:
    reply = tiny_server.predict(body, "image/png")
    assert (reply.status, reply.code) == (status, code)
    item = tiny_server.ask("POST", "/predict_batch", *form(("images", body), ("images", encoded()))).value[
        "predictions"
    ]
    assert item[0]["error"]["code"] == code
    assert item[1]["label"] in CLASS_NAMES
    for path in ("/preview", "/explain"):
        assert tiny_server.ask("POST", path, body).code == code


def test_a_body_that_is_too_large_is_refused_while_it_is_read(tiny_server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 400 * MIB:
            sent += MIB
            yield bytes(MIB)

    try:
        assert tiny_server.predict(endless()).code == "too_large"
    except (BrokenPipeError, ConnectionResetError):  # refused in the middle of our writing: just as good
        assert sent < 400 * MIB
    assert tiny_server.predict(encoded()).status == 200


@pytest.mark.parametrize(
    ("path", "files", "field"),
    [
        ("/predict", [], "image"),
        ("/predict", [], None),
        ("/predict", [("picture", encoded())], None),
        ("/predict", [("image", encoded())], "more"),
        ("/predict", [("image", encoded())] * 2, None),
        ("/predict_batch", [], None),
        ("/predict_batch", [("image", encoded())], None),
        ("/predict_batch", [("images", encoded())], "images"),
        ("/predict_batch", [("images", encoded())] * 257, None),
    ],
)
def test_forms_of_another_shape_are_bad_requests(
    tiny_server: Server, path: str, files: list[tuple[str, bytes]], field: str | None
) -> None:
    reply = tiny_server.ask("POST", path, *form(*files, field=field))
    assert (reply.status, reply.code) == (400, "bad_request")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/json", "multipart/form-data; boundary=x"])
def test_a_batch_without_a_form_is_a_bad_request(tiny_server: Server, content_type: str) -> None:
    assert tiny_server.ask("POST", "/predict_batch", b"{}", content_type).code == "bad_request"
    assert tiny_server.ask("POST", "/predict_batch", b"", content_type).code == "empty_body"


def test_unknown_paths_and_wrong_methods(tiny_server: Server) -> None:
    assert (tiny_server.ask("GET", "/nothing").status, tiny_server.ask("GET", "/nothing").code) == (404, "not_found")
    for method, path, allow in (("GET", "/predict", "POST"), ("DELETE", "/model", "GET, HEAD"), ("POST", "/livez", "")):
        reply = tiny_server.ask(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert allow in reply.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/ui", "/model", "/metrics", "/docs.json", "/schema.json", "/livez", "/readyz", "/nothing", "/predict"]
)
def test_slashes_at_either_end_of_a_path_do_not_matter(tiny_server: Server, path: str) -> None:
    for method, body in (("GET", None), ("POST", encoded())):
        plain = tiny_server.ask(method, path, body)
        for same in (f"{path}/", f"{path}//", f"/{path}", f"{path}/?a=b"):
            reply = tiny_server.ask(method, same, body, headers={"Host": "elsewhere.example"})
            assert (reply.status, reply.code) == (plain.status, plain.code)
            assert "location" not in reply.headers
            if path not in ("/metrics", "/nothing"):
                assert reply.body == plain.body
    metrics = tiny_server.ask("GET", "/metrics/").body.decode()
    assert 'endpoint="/predict/"' not in metrics


def test_the_model_is_described(tiny_server: Server) -> None:
    reply = tiny_server.ask("GET", "/model")
    assert reply.status == 200
    assert reply.value == {
        "model": tiny_server.tag,
        "labels": list(CLASS_NAMES),
        "input": {"height": 28, "width": 28, "channels": 1, "resize": "stretch", "normalize": "none"},
        "threshold": THRESHOLD,
        "metrics": {"test_accuracy": 0.5, "val_accuracy": 0.25},
    }
    assert tiny_server.ask("HEAD", "/model").body == b""


def test_the_page_loads_nothing_from_other_servers(tiny_server: Server) -> None:
    reply = tiny_server.ask("GET", "/ui")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert b"http://" not in reply.body
    assert b"https://" not in reply.body


def test_metrics_count_without_a_series_for_each_path(tiny_server: Server) -> None:
    tiny_server.predict(encoded())
    tiny_server.predict(b"hello")
    for index in range(50):
        tiny_server.ask("GET", f"/invented/{index}")
    reply = tiny_server.ask("GET", "/metrics")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain")
    assert "invented" not in text
    for line in (
        'trainer_requests_total{code="200",endpoint="/predict"}',
        'trainer_requests_total{code="415",endpoint="/predict"}',
        'trainer_requests_total{code="404",endpoint="other"}',
        'trainer_request_seconds_bucket{endpoint="/predict",le="0.005"}',
        'trainer_batch_size_bucket{le="1.0"}',
        "trainer_engine_seconds_count",
        "trainer_decode_seconds_count",
        'trainer_deadline_share_bucket{le="0.85"}',
        "trainer_queue_depth 0.0",
        f'trainer_model_info{{model="{tiny_server.tag}"}} 1.0',
    ):
        assert line in text


def test_the_log_has_a_line_for_the_model_and_for_each_error(tiny_server: Server) -> None:
    assert f"serving {tiny_server.tag} on litert" in tiny_server.log.read_text()
    before = len(tiny_server.log.read_text())
    tiny_server.predict(encoded())
    tiny_server.predict(b"hello")
    tiny_server.ask("GET", "/nothing")
    time.sleep(0.2)  # a line is written after its answer
    tiny_server.ask("GET", "/%0a%9b")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for traceparent in (trace, f"{trace}\x9b", "made up"):
        time.sleep(0.2)
        tiny_server.ask("GET", "/nothing", headers={"Traceparent": traceparent})
    time.sleep(0.2)
    lines = tiny_server.log.read_text()[before:].splitlines()
    for line, expected_line in zip(
        lines,
        (
            r"/predict 415 unsupported_type \d+\.\d ms: not an image of a supported type.*",
            r"/nothing 404 not_found \d+\.\d ms: '/nothing' is no address here; .*",
            r"/\\n\ufffd 404 not_found .*",
            rf"/nothing 404 .* lists them traceparent={trace}",
            r"/nothing 404 .* lists them",
            r"/nothing 404 .* lists them",
        ),
        strict=True,
    ):
        assert re.fullmatch(rf"\d\d:\d\d:\d\d WARNING {expected_line}", line), line


def test_a_client_that_disconnects_disturbs_no_other(tiny_server: Server) -> None:
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", tiny_server.port)
        connection.request("POST", "/predict", encoded())
        connection.close()
    half = http.client.HTTPConnection("127.0.0.1", tiny_server.port)
    half.putrequest("POST", "/predict")
    half.putheader("Content-Length", "1000")
    half.endheaders(b"the rest never comes")
    half.close()
    assert tiny_server.predict(encoded()).status == 200
    assert "Traceback" not in tiny_server.log.read_text()


def test_the_drain_file_turns_readyz_off_while_requests_are_served(tiny_server: Server) -> None:
    drain = tiny_server.log.parent / "drain"
    assert tiny_server.ask("GET", "/readyz").status == 200
    drain.touch()
    try:
        reply = tiny_server.ask("GET", "/readyz")
        assert (reply.status, reply.code) == (503, "not_ready")
        assert tiny_server.ask("GET", "/livez").status == 200
        assert tiny_server.predict(encoded()).status == 200
    finally:
        drain.unlink()
    assert tiny_server.ask("GET", "/readyz").status == 200
