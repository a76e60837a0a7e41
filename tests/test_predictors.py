"""Predictions of a running server: `trainer compare` needs one for each image, or a reason."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sample_images import image_folder

from trainer import predictors
from trainer.data import load_undivided
from trainer.data.sources.folder import FolderSource
from trainer.errors import InputError
from trainer.images.pixels import PixelSpec
from trainer.predictors import REFUSED, ServedModel
from trainer.remote import Server
from trainer.reporting.predictions import Predictions

MODEL = {"model": "pets:1", "labels": ["cat", "dog"]}
ANSWER = {"model": "pets:1", "label": "dog", "probability": 0.75, "known": True}
Reply = tuple[int, dict[str, Any]]


@contextmanager
def answering(reply: Callable[[bytes], Reply], model: dict[str, Any] = MODEL) -> Iterator[Server]:
    """A server on loopback that answers an image with `reply(image)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, model)

        def do_POST(self) -> None:
            self._send(*reply(self.rfile.read(int(self.headers["Content-Length"]))))

        def _send(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Server(f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def ask(server: Server, folder: Path) -> Predictions:
    """Predictions for three images, `a/000.png` to `a/002.png`."""
    source = FolderSource(image_folder(folder, {"a": 3}, size=(8, 8)), for_training=False)
    return ServedModel(server).predict(source, load_undivided(source, PixelSpec(8, 8, 3)))


def test_a_request_is_repeated_until_a_busy_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "PAUSE_S", 0)
    requests: Counter[bytes] = Counter()

    def busy_twice(image: bytes) -> Reply:
        requests[image] += 1
        return (200, ANSWER) if requests[image] > 2 else (503 if requests[image] == 1 else 504, {})

    with answering(busy_twice) as server:
        predicted = ask(server, tmp_path)
    assert sorted(requests.values()) == [3, 3, 3]
    assert predicted.class_names.tolist() == ["dog"] * 3
    assert predicted.probabilities.tolist() == [0.75] * 3
    assert predicted.known.all()


def test_an_image_that_the_server_does_not_take_is_marked(tmp_path: Path) -> None:
    refused = {"error": {"code": "too_large", "message": "more than 10 MiB"}}

    def refuse_one(image: bytes) -> Reply:
        return (413, refused) if image == (tmp_path / "a" / "001.png").read_bytes() else (200, ANSWER)

    with answering(refuse_one) as server:
        assert ask(server, tmp_path).class_names.tolist() == ["dog", REFUSED, "dog"]


@pytest.mark.parametrize(
    ("reply", "model", "message"),
    [
        ((401, {"error": {"code": "unauthorized", "message": "a token is expected"}}), MODEL, "a token is expected"),
        ((503, {"error": {"code": "overloaded", "message": "the queue is full"}}), MODEL, "the queue is full"),
        ((200, ANSWER | {"model": "pets:2"}), MODEL, "answers with pets:1 and with pets:2"),
        ((200, ANSWER), {}, "is no server of trainer"),
    ],
)
def test_a_server_that_cannot_be_compared_is_named(
    reply: Reply, model: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors, "PAUSE_S", 0)
    with answering(lambda image: reply, model) as server, pytest.raises(InputError, match=message) as raised:
        ask(server, tmp_path)
    assert server.url in str(raised.value)
