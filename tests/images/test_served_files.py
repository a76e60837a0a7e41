"""Damaged and unusual files, sent to a running server: the answers are those for their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from encoded_images import bmp, chunk, encode, png
from expected_answers import assert_same, expected
from PIL import Image
from server import Server, serving


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
