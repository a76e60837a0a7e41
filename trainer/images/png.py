"""Checksums of PNG chunks."""

from __future__ import annotations

import zlib

PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"tRNS")  # the chunks that affect the pixels


def check_checksums(png: bytes) -> None:
    """Raise ValueError for a wrong checksum in PIXEL_CHUNKS; Pillow ignores those of IDAT.

    Pillow finds out whether pixels are missing: a file without its end may have all of them.
    """
    start = 8
    while (end := start + 12 + int.from_bytes(png[start : start + 4], "big")) <= len(png):
        kind = png[start + 4 : start + 8]
        if kind == b"IEND":
            return
        if kind in PIXEL_CHUNKS and has_wrong_checksum(png, start):
            raise ValueError(f"the checksum of a chunk {kind.decode()} is wrong")
        start = end


def has_wrong_checksum(png: bytes, start: int) -> bool:
    """Whether the checksum of the chunk at `start`, all of which is there, is wrong."""
    end = start + 8 + int.from_bytes(png[start : start + 4], "big")
    return zlib.crc32(memoryview(png)[start + 4 : end]) != int.from_bytes(png[end : end + 4], "big")
