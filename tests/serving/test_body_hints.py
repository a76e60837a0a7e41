from __future__ import annotations

import gzip
import http.client

from expected_answers import encoded
from server import Server, read_reply


def test_an_image_altered_by_curl_names_the_right_option(tiny_server: Server) -> None:
    data = encoded().replace(b"\n", b"").replace(b"\r", b"")  # as `curl -d @FILE` does
    reply = tiny_server.predict(data, "application/x-www-form-urlencoded")
    assert reply.status == 415
    assert "--data-binary @FILE" in reply.value["error"]["message"]


def test_json_is_named(tiny_server: Server) -> None:
    for path in ("/predict", "/preview", "/explain"):
        for content_type in (
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/x-www-form-urlencoded",
        ):  # the last from `curl -d`
            reply = tiny_server.ask("POST", path, b'{"image": "aGVsbG8="}', content_type)
            assert reply.status == 415
            assert "not JSON" in reply.value["error"]["message"]


def test_a_compressed_body_is_named(tiny_server: Server) -> None:
    for encoding in ("gzip", "GZIP"):
        connection = http.client.HTTPConnection("127.0.0.1", tiny_server.port, timeout=30)
        headers = {"Content-Encoding": encoding, "Expect": "100-Continue"}
        connection.request("POST", "/predict", gzip.compress(encoded()), headers)
        reply = read_reply(connection)
        connection.close()
        assert reply.status == 415
        assert "Content-Encoding: gzip is not read" in reply.value["error"]["message"]
