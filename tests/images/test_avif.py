from __future__ import annotations

import struct

import pytest
from encoded_images import encode, gradient

from trainer.images.avif import MAX_BOXES, MAX_TABLE_BYTES, check_tables


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_tables_are_found_wherever_they_are() -> None:
    table = box(b"iloc", bytes(MAX_TABLE_BYTES))
    animation = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"stsz", bytes(70_000)))))))
    long_size = struct.pack(">I4sQ", 1, b"meta", 20 + len(table)) + bytes(4) + table
    to_the_end = bytes(4) + b"meta" + bytes(4) + table
    for file in (box(b"meta", bytes(4) + table), long_size, to_the_end, animation):
        with pytest.raises(ValueError, match="KiB"):
            check_tables(box(b"ftyp", b"avif") + file)


def test_boxes_are_counted_and_sizes_do_not_lead_astray() -> None:
    check_tables(box(b"free", b"") * MAX_BOXES)
    with pytest.raises(ValueError, match="boxes"):
        check_tables(box(b"free", b"") * (MAX_BOXES + 1))
    for size in (2, 7, 0xFFFFFFFF):  # the decoder reports it
        check_tables(struct.pack(">I", size) + b"meta" + bytes(100))
    check_tables(b"")


def test_images_and_animations_pass() -> None:
    check_tables(encode(gradient(width=64, height=64), "AVIF"))
    check_tables(encode(gradient(), "AVIF", save_all=True, append_images=[gradient()] * 20, speed=10))
    check_tables(box(b"mdat", box(b"iloc", bytes(100_000))))  # pixels hold any bytes
