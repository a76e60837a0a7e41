"""Limits for AVIF that libavif does not have: it searches all items again for each entry of a table.

A file of 10 MB could hold it for hours, and all threads of Python with it.
"""

from __future__ import annotations

MAX_TABLE_BYTES = 64 << 10  # an image in a grid of a thousand cells needs half of it
MAX_BOXES = 10_000
# Boxes that hold others → bytes before the first of them.
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
# Boxes that are tables: of items, their places, references and properties, and of the frames of an animation.
TABLES = (b"iinf", b"iloc", b"iref", b"ipma", b"stsc", b"stco", b"co64", b"stsz", b"stts", b"stss")


def check_tables(avif: bytes) -> None:
    """Raise ValueError for a table that is too large, or too many boxes."""
    parts = [(0, len(avif))]
    boxes = 0
    while parts:
        start, end = parts.pop()
        while start + 8 <= end:
            boxes += 1
            if boxes > MAX_BOXES:
                raise ValueError(f"it has more than {MAX_BOXES:,} boxes")
            size, kind, header = int.from_bytes(avif[start : start + 4], "big"), avif[start + 4 : start + 8], 8
            if size == 1:
                size, header = int.from_bytes(avif[start + 8 : start + 16], "big"), 16
            elif size == 0:
                size = end - start
            if size < header:  # the decoder reports it
                break
            if kind in TABLES and size > MAX_TABLE_BYTES:
                raise ValueError(f"its table {kind.decode()} is longer than {MAX_TABLE_BYTES >> 10} KiB")
            if kind in CONTAINERS:
                parts.append((start + header + CONTAINERS[kind], min(start + size, end)))
            start += size
