"""Damaged and unusual files, sent to a running server: the answers are those for their pixels."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from encoded_images import bmp, chunk, encode, png
from expected_answers import assert_same, expected
from PIL import Image
from server import Server, serving
from tiny_model import write_tiny_spec

from trainer import load_model
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tiny_artifact, tmp_path_factory.mktemp("home")) as running:
        yield running


def image() -> Image.Image:
    y, x = np.mgrid[:40, :56]
    return Image.fromarray(np.stack([x * 4, y * 6, (x * y) % 256], -1).astype(np.uint8))


def files() -> dict[str, tuple[bytes, bytes]]:
    """Name → the file, and an intact one with the same pixels."""
    gray = np.asarray(image().convert("L"))
    heic, jpeg, whole_png, gif = (encode(image(), name) for name in ("HEIC", "JPEG", "PNG", "GIF"))
    progressive = encode(image(), "JPEG", progressive=True)
    bgra = np.dstack([np.asarray(image())[::-1, :, ::-1], np.zeros((40, 56), np.uint8)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in gray * np.uint16(257))
    at = whole_png.index(b"IDAT") - 4
    damaged_text = whole_png[:at] + chunk(b"tEXt", b"a\0b")[:-1] + b"?" + whole_png[at:]
    return {
        "HEIC": (heic, heic),
        "BMP with alpha 0 throughout": (bmp(bgra.tobytes(), 56, 40), encode(image(), "PNG")),
        "16-bit PNG": (png(56, 40, 16, 0, rows), encode(image().convert("L"), "PNG")),
        "PNG, wrong checksum of text": (damaged_text, whole_png),
        "PNG without its end": (whole_png[:-12], whole_png),
        "JPEG without its end": (jpeg[:-2], jpeg),
        "progressive JPEG without its end": (progressive[:-2], progressive),
        "GIF without its end": (gif[:-1], gif),
    }


@pytest.mark.parametrize("name", files())
def test_files_whose_pixels_are_intact_are_classified(name: str, server: Server, tiny_artifact: Path) -> None:
    file, intact = files()[name]
    reply = server.predict(file)
    assert reply.status == 200
    assert_same(reply.value, expected(intact, tiny_artifact))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "HEIC"])
def test_files_whose_pixels_are_cut_off_are_refused(format: str, server: Server) -> None:
    file = encode(image(), format)
    assert server.predict(file[: len(file) * 2 // 3]).code == "corrupt_image"


def test_a_padded_model_sees_the_same_pixels_in_a_server_and_in_python(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    spec = PixelSpec(28, 28, 1, "pad")
    write_tiny_spec(folder, pixels=spec)
    home = tmp_path / "home"
    with serving(folder, home) as server:
        assert server.ask("GET", "/model").value["input"]["resize"] == "pad"
        file = encode(image(), "PNG")
        preview = Image.open(io.BytesIO(server.ask("POST", "/preview", file).body))
        np.testing.assert_array_equal(np.asarray(preview)[:, :, None], decode(file, spec))
        assert (np.asarray(preview)[:4] == np.asarray(preview)[4]).all()  # 28×20, and 4 rows above
        assert server.ask("POST", "/explain", file).status == 200
        answer = server.predict(file).value
        monkeypatch.setenv("BENTOML_HOME", str(home))
        assert load_model(server.tag).predict(file).probability == answer["probability"]
        assert_same(answer, expected(file, folder))
        assert answer["probability"] != expected(file, tiny_artifact)["probability"]
