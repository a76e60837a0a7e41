from __future__ import annotations

import base64
import gzip
import http.client
import io

import numpy as np
import pytest
from expected_answers import encoded
from PIL import Image
from server import Server, form, read_reply

CURL = "application/x-www-form-urlencoded"  # sent by `curl -d` and `curl --data-binary`
PATHS = ("/predict", "/preview", "/explain")


def image_file(format: str) -> bytes:
    """An image with enough bytes to be told from text, whichever are removed."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def altered_by_curl(data: bytes) -> bytes:
    """As `curl -d @FILE` sends a file."""
    return data.translate(None, b"\r\n\0")


def message(server: Server, path: str, body: bytes, content_type: str = "") -> str:
    reply = server.ask("POST", path, body, content_type)
    assert reply.code in ("unsupported_type", "corrupt_image")
    return str(reply.value["error"]["message"])


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "WebP", "AVIF"])
def test_an_image_altered_by_curl_names_the_right_option(tiny_server: Server, format: str) -> None:
    assert "--data-binary @FILE" in message(tiny_server, "/predict", altered_by_curl(image_file(format)), CURL)


def test_other_bodies_that_curl_sends_are_not_blamed_on_its_option(tiny_server: Server) -> None:
    png = image_file("PNG")
    damaged = png[:200] + bytes([png[200] ^ 1]) + png[201:]
    for body in (png[:-2000], damaged, image_file("JPEG")[:-900], b"II*\0" + png, b"hello", b"\x89"):
        assert ("--data-binary" in message(tiny_server, "/predict", body, CURL)) == (body == b"\x89")
    too_large = png[:16] + (30_000).to_bytes(4, "big") * 2 + png[24:]
    reply = tiny_server.predict(too_large, CURL)
    assert reply.status >= 400
    assert "--data-binary" not in reply.value["error"]["message"]


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", CURL, "image/png"])
@pytest.mark.parametrize("body", [b'{"image": "aGVsbG8="}', b' \n[{"image": 1}]', b"\xef\xbb\xbf{}"])
def test_json_is_named(tiny_server: Server, content_type: str, body: bytes) -> None:
    for path in PATHS:
        assert "not JSON" in message(tiny_server, path, body, content_type)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WebP", "AVIF"])
def test_base64_and_data_uris_are_named(tiny_server: Server, format: str) -> None:
    text = base64.b64encode(image_file(format))
    for body in (text, base64.encodebytes(image_file(format)), text.rstrip(b"="), b'"' + text + b'"\n'):
        for content_type in ("", "text/plain", CURL, "image/png"):
            assert "not base64" in message(tiny_server, "/predict", body, content_type)
    assert "not base64" in message(tiny_server, "/predict", base64.urlsafe_b64encode(image_file(format)))
    for uri in (b"data:image/png;base64," + text, b"DATA:,x"):
        for path in PATHS:
            assert "not a data URI" in message(tiny_server, path, uri)


def test_urls_form_fields_and_forms_without_a_content_type_are_named(tiny_server: Server) -> None:
    assert "not a URL" in message(tiny_server, "/predict", b"https://example.org/seven.png")
    assert "not a form field" in message(tiny_server, "/predict", b"image=%89PNG%0D%0A", CURL)
    assert "multipart/form-data" in message(tiny_server, "/predict", form(("image", encoded()))[0], "image/png")


def test_other_text_has_no_hint(tiny_server: Server) -> None:
    for body in (b"hello", b"aGVsbG8=", b"abcd" * 200, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"II*\0"):
        for content_type in ("", CURL):
            assert "(" not in message(tiny_server, "/predict", body, content_type)


def test_a_file_of_a_form_has_the_hint_of_its_contents(tiny_server: Server) -> None:
    files = [encoded(), base64.b64encode(encoded()), b'{"image": 1}', b"data:image/png;base64,aaaa", encoded()[:-200]]
    reply = tiny_server.ask("POST", "/predict_batch", *form(*(("images", data) for data in files)))
    messages = [item.get("error", {}).get("message", "") for item in reply.value["predictions"]]
    assert messages[0] == ""
    for text, part in zip(messages[1:4], ("not base64", "not JSON", "not a data URI"), strict=True):
        assert part in text
    assert "(" not in messages[4]
    single = tiny_server.predict(*form(("image", files[1])))
    assert "not base64" in single.value["error"]["message"]


def test_a_compressed_body_is_named(tiny_server: Server) -> None:
    for encoding in ("gzip", "GZIP"):
        connection = http.client.HTTPConnection("127.0.0.1", tiny_server.port, timeout=30)
        headers = {"Content-Encoding": encoding, "Expect": "100-Continue"}
        connection.request("POST", "/predict", gzip.compress(encoded()), headers)
        reply = read_reply(connection)
        connection.close()
        assert reply.status == 415
        assert "Content-Encoding: gzip is not read" in reply.value["error"]["message"]
