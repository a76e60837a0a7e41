"""Limit for run-length encoded BMPs, which Pillow decodes in Python, with the lock of all threads."""

from __future__ import annotations

from PIL import ImageFile

MAX_WORK = 5_000_000  # pixels, and twice the bytes: 0.1 to 0.2 µs each


def check_run_lengths(bmp: bytes, image: ImageFile.ImageFile) -> None:
    """Raise ValueError for a large file with run-length encoding; `image` is the opened `bmp`."""
    encoded = any(tile.codec_name == "bmp_rle" for tile in image.tile)
    if encoded and image.width * image.height + 2 * len(bmp) > MAX_WORK:
        size = f"{len(bmp):,} bytes, {image.width}x{image.height}"
        raise ValueError(f"it is too large for run-length encoding: {size}")
