"""Clients that close their connection while their images are computed: altogether, or their side of it."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from expected_answers import assert_same, encoded, expected
from server import Server, form, serving

IMAGES = 200
# Imported by each Python process: an engine that takes 10 ms for an image, and hardly any CPU time.
SITECUSTOMIZE = """
import time
from trainer.serving import loaded_model

load = loaded_model.load_engine

class Engine:
    def __init__(self, engine):
        self.engine = engine

    def predict(self, images):
        time.sleep(0.01 * len(images))
        return self.engine.predict(images)

loaded_model.load_engine = lambda *arguments: Engine(load(*arguments))
"""


@pytest.fixture(scope="module")
def slow_server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home: Path = tmp_path_factory.mktemp("slow")
    (home / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = f"{home}:{os.getcwd()}"
    with serving(tiny_artifact, home, "--arg", "deadline_ms=60000", PYTHONPATH=path) as server:
        # Once a batch has been measured as slow it runs in a thread: the event loop can notice a client that goes.
        server.ask("POST", "/predict_batch", *form(*[("images", encoded())] * IMAGES))
        yield server


def metric(server: Server, name: str) -> float:
    (value,) = re.findall(rf"^{name} (.*)$", server.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    return float(value)


def computed_images(server: Server) -> float:
    """Once the engine is idle."""
    computed = -1.0
    while computed != (computed := metric(server, "trainer_batch_size_sum")):
        time.sleep(1)  # longer than a batch
    return computed


def send_batch(server: Server) -> socket.socket:
    body, content_type = form(*[("images", encoded())] * IMAGES)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /predict_batch HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}\r\n".encode() + body)
    time.sleep(0.2)  # the first batch begins
    return connection


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_images_of_a_client_that_has_gone_are_not_computed(slow_server: Server, reset: bool) -> None:
    before = computed_images(slow_server)
    connection = send_batch(slow_server)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert 0 < computed_images(slow_server) - before <= IMAGES / 2
    assert slow_server.predict(encoded()).status == 200


def test_a_half_closed_client_gets_its_whole_response(slow_server: Server, tiny_artifact: Path) -> None:
    before = computed_images(slow_server)
    connection = send_batch(slow_server)
    connection.shutdown(socket.SHUT_WR)
    response = b""
    with connection:
        while data := connection.recv(65536):
            response += data
    head, body = response.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    predictions = json.loads(body)["predictions"]
    assert len(predictions) == IMAGES
    assert_same(predictions[-1], expected(encoded(), tiny_artifact))
    assert computed_images(slow_server) - before == IMAGES
