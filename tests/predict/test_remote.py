from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from expected_answers import encoded
from server import serving

from trainer.cli import run
from trainer.errors import InputError
from trainer.predict.remote import RemoteFiles


class FixedAnswer(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"label": "7"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), FixedAnswer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_addresses_bypass_the_proxy(
    host: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    image = tmp_path / "7.png"
    image.write_bytes(b"png")
    for url in (f"http://{host}:{port}/", f"HTTP://{host}:{port}", f"{host}:{port}", f"{host}:{port}/"):
        assert list(RemoteFiles(url).predict([image])) == [{"label": "7", "path": str(image)}]
    with pytest.raises(InputError, match=r"http://10\.0\.0\.1"):  # refused at once, by the proxy
        next(RemoteFiles("http://10.0.0.1").predict([image]))


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://host:port", "host:99999", "ftp://host", "http://", "", ":3000", "a b"]
)
def test_an_invalid_address_is_refused_in_one_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "7.png").write_bytes(b"png")
    assert run(["predict", "--url", url, str(tmp_path / "7.png")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: --url: ")
    assert errors.count("\n") == 1


def test_an_address_needs_no_scheme(tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "7.png"
    image.write_bytes(encoded())
    with serving(tiny_artifact, tmp_path) as server:
        for url in (f"localhost:{server.port}", f"127.0.0.1:{server.port}/"):
            assert run(["predict", "--json", "--url", url, str(image)]) == 0
            assert json.loads(capsys.readouterr().out)["model"] == server.tag
