"""A server whose engine or decoder hangs: not ready, and ready again afterwards."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected_answers import assert_same, encoded, expected
from PIL import Image
from server import Server, serving

# Imported by each Python process: engines take 4 ms for an image, so that parallel ones are chosen, and calls hang
# while a file exists. A call of a second is a stall.
SITECUSTOMIZE = """
import os, time
from trainer.images.decode import EncodedImage
from trainer.serving import decoding, loaded_model, parallel

parallel.STALLED_S = decoding.STALLED_S = 1.0
load, decode = loaded_model.load_engine, EncodedImage.decode

def hang(name):
    while os.path.exists(os.path.join(os.environ["HANG"], name)):
        time.sleep(0.01)

class Engine:
    def __init__(self, engine):
        self.engine = engine

    def predict(self, images):
        end = time.thread_time() + 0.004 * len(images)
        while time.thread_time() < end:
            pass
        hang("engine")
        return self.engine.predict(images)

def hanging_decode(self, spec):
    hang("decoder")
    return decode(self, spec)

loaded_model.load_engine = lambda *arguments: Engine(load(*arguments))
EncodedImage.decode = hanging_decode
"""


def large_image() -> bytes:
    """More pixels than are decoded on the event loop."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((400, 400), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("hung", "body"), [("engine", encoded()), ("decoder", large_image())])
def test_a_server_whose_threads_hang_is_not_ready(tiny_artifact: Path, tmp_path: Path, hung: str, body: bytes) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    variables: dict[str, Any] = {"TRAINER_THREADS": "2", "TRAINER_DEADLINE_MS": "100", "HANG": str(tmp_path)}
    path = f"{tmp_path}:{os.getcwd()}"
    with serving(tiny_artifact, tmp_path, PYTHONPATH=path, **variables) as server:
        assert "2 images at once" in server.log.read_text()
        file = tmp_path / hung
        file.touch()

        def is_stalled() -> bool:
            """One request at a time, each of which times out."""
            assert server.predict(body).code in ("deadline_exceeded", "overloaded")
            return server.ask("GET", "/readyz").code == "not_ready"

        wait_for(is_stalled)
        assert server.ask("GET", "/livez").status == 200
        file.unlink()
        wait_for(lambda: server.ask("GET", "/readyz").status == 200)
        wait_for(lambda: server.predict(encoded()).status == 200)
        assert_answers(server, tiny_artifact)


def assert_answers(server: Server, artifact: Path) -> None:
    assert_same(server.predict(encoded()).value, expected(encoded(), artifact))
