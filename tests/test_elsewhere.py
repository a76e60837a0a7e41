"""The program of docs/elsewhere.md, which knows nothing of this package."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from server import PROJECT

from trainer import load_model
from trainer.artifact import store

PAGE = PROJECT / "docs" / "elsewhere.md"


def program() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def classify(folder: Path, image: Path) -> dict[str, Any]:
    # -I: without the folder and the variables that would let it import this project's modules.
    done = subprocess.run(
        [sys.executable, "-I", "-c", program(), str(folder), str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_program_is_short_and_stands_alone() -> None:
    assert len(program().splitlines()) <= 30
    assert "trainer" not in program()


@pytest.mark.parametrize(
    ("format", "orientation", "size"), [("JPEG", 1, (300, 211)), ("JPEG", 6, (120, 90)), ("PNG", 1, (20, 31))]
)
def test_the_program_answers_as_the_model(
    format: str, orientation: int, size: tuple[int, int], tiny_artifact: Path, tmp_path: Path
) -> None:
    store.publish(tiny_artifact, "tiny")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    noise = np.random.default_rng(size).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    Image.fromarray(noise).resize(size).save(file, format, exif=exif)
    (tmp_path / "image").write_bytes(file.getvalue())
    wanted = load_model("tiny").predict(tmp_path / "image")
    assert classify(tiny_artifact, tmp_path / "image") == {
        "label": wanted.label,
        "probability": wanted.probability,
        "known": wanted.known,
    }
