from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.errors import InputError
from trainer.predict import predict_remote


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
    assert list(predict_remote(f"http://{host}:{port}/", [image])) == [{"label": "7", "path": str(image)}]
    with pytest.raises(InputError, match=r"http://10\.0\.0\.1"):  # refused at once, by the proxy
        next(predict_remote("http://10.0.0.1", [image]))


def test_an_invalid_address_is_refused(tmp_path: Path) -> None:
    for url in ("127.0.0.1:3000", "http://[::1", "http://host:port"):
        (tmp_path / "7.png").write_bytes(b"png")
        with pytest.raises(InputError, match="--url: "):
            next(predict_remote(url, [tmp_path / "7.png"]))
