"""16-bit gray files whose values have fewer bits, as detectors and cameras deliver them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.artifact import store
from trainer.cli import run
from trainer.data import load
from trainer.images.decode import EncodedImage, decode
from trainer.images.pixels import PixelSpec


def png16(values: NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, largest: int, count: int = 30) -> Path:
    """Two classes, bright on the left or on the right; values up to `largest`, reached by the last image alone."""
    rng = np.random.default_rng(0)
    for number in range(2 * count):
        values = rng.integers(0, largest // 4, (16, 16))
        values[:, :8] += largest // 4
        values[0, 0] = largest if number == 2 * count - 1 else 0
        image = values if number % 2 else values[:, ::-1]
        file = root / ("left" if number % 2 else "right") / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png16(image.astype(np.uint16)))
    return root


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_the_upper_8_of_the_bits_are_read(bits: int, white: int) -> None:
    values = np.array([[0, white // 2, white, min(65535, white + 1)]], np.uint16)
    pixels = decode(png16(values), PixelSpec(1, 4, 1, bits=bits))
    assert pixels.ravel().tolist() == [0, 127, 255, 255]


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (16383, 14), (65535, 16)]
)
def test_used_bits_follow_from_the_largest_value(largest: int, bits: int) -> None:
    image = EncodedImage(png16(np.array([[0, largest]], np.uint16)))
    image.decode(PixelSpec(1, 2, 1))
    assert image.used_bits == bits


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (4095, 12), (9000, 14), (65535, 16)])
def test_the_range_is_that_of_the_whole_data_set(tmp_path: Path, largest: int, bits: int) -> None:
    folder = write_folder(tmp_path / "set", largest)
    for _ in range(2):  # decoded, then from the cache
        dataset = load(f"folder:{folder}")
        assert dataset.pixels == PixelSpec(16, 16, 1, bits=bits)
    images = dataset.train.cache.read(np.arange(60))
    bright = 255 * (largest / 4) / 2**bits
    assert images.max() == largest >> bits - 8
    assert 0.9 * bright < images[:, :, :8].max(2).mean() < 2.2 * bright


def test_checks_and_predictions_see_the_whole_range(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "set", largest=4095)
    assert run(["data", "inspect", f"folder:{folder}", "--sheet", str(tmp_path / "sheet.png")]) == 0
    shown = "".join(capsys.readouterr())
    assert "of one colour" not in shown
    assert "too dark" not in shown
    export = tmp_path / "export"
    shutil.copytree(tiny_artifact, export)
    spec = json.loads((export / "spec.json").read_text())
    assert "bits" not in spec["pixels"]
    (export / "spec.json").write_text(json.dumps(spec | {"pixels": spec["pixels"] | {"bits": 12}}))
    store.publish(export, "bits")
    deep, shallow = tmp_path / "deep.png", tmp_path / "shallow.png"
    values = np.linspace(0, 4095, 784).astype(np.uint16).reshape(28, 28)
    deep.write_bytes(png16(values))
    Image.fromarray((values >> 4).astype(np.uint8)).save(shallow)
    assert run(["predict", "--json", "bits", str(deep), str(shallow)]) == 0
    of_deep, of_shallow = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert of_deep["top"] == of_shallow["top"]
