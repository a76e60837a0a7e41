"""Small encoded images of every format and mode that `trainer.images` decodes: what mutations begin with."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pillow_heif import from_pillow

ORIENTATION = 0x0112
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
PNG_START = b"\x89PNG\r\n\x1a\n"


def drawn(width: int = 40, height: int = 30) -> Image.Image:
    """A gradient with noise, RGB."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    pixels = np.stack([x * 200 // width, y * 200 // height, (x + y) * 2 % 200], -1) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def seed_images(image: Image.Image) -> dict[str, bytes]:
    """Name → file, all of the same RGB image."""
    gray, palette = image.convert("L"), image.quantize(30)
    alpha = image.convert("RGBA")
    alpha.putalpha(gray)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)], "duration": 40}
    return {
        "baseline.jpeg": _save(image, "JPEG"),
        "full.jpeg": _save(image, "JPEG", subsampling=0, exif=exif, restart_marker_rows=1),
        "progressive.jpeg": _save(image, "JPEG", progressive=True),
        "gray.jpeg": _save(gray, "JPEG"),
        "gray-progressive.jpeg": _save(gray, "JPEG", progressive=True),
        "cmyk.jpeg": _save(image.convert("CMYK"), "JPEG"),
        "rgb.png": _save(image, "PNG", exif=exif),
        "rgba.png": _save(alpha, "PNG"),
        "gray.png": _save(gray, "PNG"),
        "gray-alpha.png": _save(alpha.convert("LA"), "PNG"),
        "palette.png": _save(palette, "PNG", transparency=3),
        "4-bits.png": _save(image.quantize(15), "PNG", bits=4),
        "1-bit.png": _save(image.convert("1"), "PNG"),
        "16-bits-gray.png": _png(np.asarray(gray).astype(">u2")[:, :, None] * 257, 0),
        "16-bits.png": _png(np.asarray(alpha).astype(">u2") * 257, 6),
        "interlaced.png": _interlaced_png(np.asarray(image)),
        "lossy.webp": _save(image, "WebP", exif=exif),
        "lossless.webp": _save(image, "WebP", lossless=True),
        "alpha.webp": _save(alpha, "WebP"),
        "animated.webp": _save(image, "WebP", **frames),
        "rgb.bmp": _save(image, "BMP"),
        "rgba.bmp": _save(alpha, "BMP"),
        "palette.bmp": _save(palette, "BMP"),
        "1-bit.bmp": _save(image.convert("1"), "BMP"),
        "run-lengths.bmp": _run_length_bmp(palette),
        "palette.gif": _save(palette, "GIF", transparency=3),
        "animated.gif": _save(image, "GIF", **frames),
        "colour.avif": _save(image, "AVIF", speed=10),
        "alpha.avif": _save(alpha, "AVIF", speed=10, subsampling="4:4:4"),
        "animated.avif": _save(image, "AVIF", speed=10, **frames),
        "colour.heic": _save_heic(image, exif=exif.tobytes()),
        "alpha.heic": _save_heic(alpha),
        "gray.heic": _save_heic(gray),
    }


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _save_heic(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    from_pillow(image).save(file, quality=50, **options)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(pixels: NDArray[Any], colour_type: int) -> bytes:
    """A PNG of [H,W,C], 8 or 16 bits, big-endian."""
    return _png_file(pixels, colour_type, 0, b"".join(b"\0" + row.tobytes() for row in pixels))


def _interlaced_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of [H,W,3] in seven passes, which Pillow does not write."""
    passes = (pixels[y::down, x::right] for x, y, right, down in ADAM7)
    return _png_file(pixels, 2, 1, b"".join(b"\0" + row.tobytes() for part in passes for row in part))


def _png_file(pixels: NDArray[Any], colour_type: int, interlace: int, rows: bytes) -> bytes:
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour_type, 0, 0, interlace)
    return PNG_START + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _run_length_bmp(image: Image.Image) -> bytes:
    """A BMP of a palette image in runs of one pixel, which Pillow does not write."""
    rows = b"".join(b"".join(b"\1%c" % value for value in row) + b"\0\0" for row in np.asarray(image)[::-1]) + b"\0\1"
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()  # blue, green, red, 0
    header = struct.pack("<IiiHHIIiiII", 40, image.width, image.height, 1, 8, 1, len(rows), 0, 0, len(colours), 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + palette + rows
