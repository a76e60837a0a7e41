"""Servers with little memory: every request is served before and after the others, or refused at once."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server import Server, form, serving
from tiny_model import export_pooled_model

from trainer.artifact.spec import EXPLAIN_FILE
from trainer.serving.request import MIB

# Imported by each Python process: the budget of a container of another size.
SITECUSTOMIZE = """
import os
from trainer.serving import memory

memory.request_memory = lambda workers: int(os.environ["BUDGET"])
"""


@pytest.fixture(scope="module")
def pooled_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with an activation engine."""
    folder = export_pooled_model(tmp_path_factory.mktemp("pooled_artifact") / "export")
    assert (folder / EXPLAIN_FILE).is_file()
    return folder


@contextmanager
def serving_with(budget: int, artifact: Path, home: Path) -> Iterator[Server]:
    (home / "sitecustomize.py").write_text(SITECUSTOMIZE)
    with serving(artifact, home, PYTHONPATH=f"{home}:{os.getcwd()}", BUDGET=str(budget)) as server:
        yield server


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_largest_image_is_served_before_and_after_an_explanation(pooled_artifact: Path, tmp_path: Path) -> None:
    largest = png(2800, 2800)  # 61 of 64 MiB
    with serving_with(64 * MIB, pooled_artifact, tmp_path) as server:
        for _ in range(2):
            assert server.predict(largest).status == 200
            for _ in range(3):
                assert server.ask("POST", "/explain", png(28, 28)).status == 200
        assert server.ask("POST", "/explain", largest).status == 200


def test_what_never_fits_is_refused_at_once_with_its_reason(pooled_artifact: Path, tmp_path: Path) -> None:
    with serving_with(9 * MIB, pooled_artifact, tmp_path) as server:
        assert server.predict(png(300, 300)).status == 200
        for path, body, status, code in (
            ("/explain", png(28, 28), 404, "not_found"),
            ("/predict", png(1200, 1200), 413, "too_many_pixels"),
            ("/predict", png(28, 28) + bytes(10 * MIB), 413, "too_large"),
        ):
            reply = server.ask("POST", path, body)
            assert (reply.status, reply.code) == (status, code)
            assert "retry-after" not in reply.headers
            assert "9" in reply.value["error"]["message"]
            assert "again" not in reply.value["error"]["message"]
        batch = form(*[("images", png(1200, 1200)), ("images", png(28, 28))])
        items = server.ask("POST", "/predict_batch", *batch).value["predictions"]
        assert items[0]["error"]["code"] == "too_many_pixels"
        assert "label" in items[1]
        assert server.ask("POST", "/predict_batch", *form(("images", bytes(12 * MIB)))).code == "too_large"
        assert server.predict(png(300, 300)).status == 200
