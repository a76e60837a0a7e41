"""An encoded image, and the prediction that is expected for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer import artifact
from trainer.artifact.engine import load_engine
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode


def encoded(format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (28, 28), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def expected(image: bytes, folder: Path, engine_name: str = "litert") -> dict[str, Any]:
    loaded = artifact.load(folder)
    outputs = load_engine(loaded, engine_name).predict(decode(image, loaded.pixels)[None])
    return prediction({name: rows[0] for name, rows in outputs.items()}, loaded.class_names, loaded.threshold)


def assert_same(answer: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Equal classes; probabilities may differ in the last digits with the size of the batch."""
    assert [answer[key] for key in ("label", "index", "known")] == [wanted[key] for key in ("label", "index", "known")]
    assert [score["index"] for score in answer["top"]] == [score["index"] for score in wanted["top"]]
    np.testing.assert_allclose(
        [score["probability"] for score in answer["top"]],
        [score["probability"] for score in wanted["top"]],
        atol=2e-6,
    )
