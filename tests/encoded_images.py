"""Encoded images for the tests of trainer.images."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

from trainer.errors import ImageError
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec

GRAY = PixelSpec(4, 6, 1)
COLOUR = PixelSpec(4, 6, 3)
DIGIT = PixelSpec(28, 28, 1, normalize="mnist")
# Options of lossless encoding; PNG, BMP and GIF need none.
LOSSLESS: dict[str, dict[str, Any]] = {
    "WebP": {"lossless": True},
    "HEIC": {"quality": -1, "chroma": 444, "matrix_coefficients": 0},
}


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """Encode an image. pillow-heif is not registered with Pillow: that would change Image.open for other tests."""
    buffer = io.BytesIO()
    if format == "HEIC":
        from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", width: int = 6, height: int = 4) -> Image.Image:
    """An image in which every pixel differs, in every channel."""
    y, x = np.mgrid[:height, :width]
    x, y = x / (width - 1), y / (height - 1)
    return Image.fromarray(np.stack([x * 240, y * 250, x * 90 + y * 160], -1).astype(np.uint8)).convert(mode)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of raw rows, each with its filter byte; `extra` chunks precede IDAT."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bmp(bgra: bytes, width: int, height: int, header_bytes: int = 108) -> bytes:
    """A BMP of 32 bits, bottom row first, with a mask for alpha in its header of version 3 to 5."""
    header = struct.pack("<IiiHHIIiiII", header_bytes, width, height, 1, 32, 3, len(bgra), 2835, 2835, 0, 0)
    header = (header + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)).ljust(header_bytes, b"\0")
    offset = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", offset + len(bgra), 0, 0, offset) + header + bgra


def error_code(data: bytes, spec: PixelSpec = COLOUR) -> str:
    """The code with which `decode` refuses the image."""
    with pytest.raises(ImageError) as caught:
        decode(data, spec)
    assert "/" not in str(caught.value)
    return caught.value.code
