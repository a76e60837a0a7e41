"""Mutations of encoded images: of their bytes, and of the parts that their format has.

Most get their checksums and sizes corrected afterwards, so that decoders read on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random

MAX_BYTES = 64 << 10  # larger ones are cut: a million are to be decoded
MAX_STEPS = 4
REPAIRED = 0.75  # share
COPIES = (1, 1, 2, 20, 300)
NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    5000,
    0x3FFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    1 << 20,
    (1 << 31) - 1,
    (1 << 32) - 1,
)
# Boxes of an ISO base media file that hold others → bytes before the first of them.
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
FRAME_MARKERS = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")

Part = tuple[int, int]  # start and end


def mutated(image: bytes, other: bytes, random: Random) -> bytes:
    """The image after one to four mutations; `other` is what it may be spliced with."""
    data = bytearray(image)
    for _ in range(random.randint(1, MAX_STEPS)):
        mutate = random.choice(MUTATIONS)
        mutate(data, random, other)
        del data[MAX_BYTES:]
    if random.random() < REPAIRED:
        _repair(data)
    return bytes(data)


def _flip_bits(data: bytearray, random: Random, _other: bytes) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 32)) if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set_run(data: bytearray, random: Random, _: bytes) -> None:
    """Random, equal or extreme bytes in a row."""
    start = random.randint(0, len(data))
    run = random.choice((random.randbytes(4), random.randbytes(1) * 16, b"\0" * 64, b"\xff" * 64))
    data[start : start + len(run)] = run


def _set_number(data: bytearray, random: Random, _: bytes) -> None:
    """An extreme number of two or four bytes anywhere."""
    _write_number(data, random.randint(0, len(data)), random)


def _insert(data: bytearray, random: Random, _: bytes) -> None:
    start = random.randint(0, len(data))
    data[start:start] = random.randbytes(random.choice((1, 2, 7, 100)))


def _delete(data: bytearray, random: Random, _: bytes) -> None:
    start = random.randint(0, len(data))
    del data[start : start + random.choice((1, 2, 7, 100))]


def _copy_run(data: bytearray, random: Random, _: bytes) -> None:
    start, to = random.randint(0, len(data)), random.randint(0, len(data))
    data[to:to] = data[start : start + random.choice((1, 4, 60, 1000))] * random.choice(COPIES)


def _truncate(data: bytearray, random: Random, _: bytes) -> None:
    del data[random.randint(0, len(data)) :]


def _splice(data: bytearray, random: Random, other: bytes) -> None:
    data[random.randint(0, len(data)) :] = other[random.randint(0, len(other)) :]


def _splice_part(data: bytearray, random: Random, other: bytes) -> None:
    """A part of the other file inserted before a part of this one."""
    start, end = _choose(other, random)
    to = _choose(data, random)[0]
    _replace_part(data, to, to, other[start:end])


def _copy_part(data: bytearray, random: Random, _: bytes) -> None:
    """A part doubled or repeated, in its place or before another."""
    start, end = _choose(data, random)
    to = random.choice((start, _choose(data, random)[0]))
    _replace_part(data, to, to, bytes(data[start:end]) * random.choice(COPIES))


def _delete_part(data: bytearray, random: Random, _: bytes) -> None:
    _replace_part(data, *_choose(data, random), b"")


def _set_number_in_part(data: bytearray, random: Random, _: bytes) -> None:
    """An extreme number among the first bytes of a part, where sizes and counts stand."""
    start, end = _choose(data, random)
    _write_number(data, random.randint(start, min(start + 24, end)), random)


def _set_size_of_image(data: bytearray, random: Random, _: bytes) -> None:
    """Extreme width and height in the header."""
    if data.startswith(b"\x89PNG"):
        place, layout = 16, ">I"
    elif data.startswith(b"BM"):
        place, layout = 18, "<I"
    elif data.startswith(b"GIF"):
        place, layout = 6, "<H"
    elif data.startswith(b"RIFF"):
        place, layout = random.choice((24, 26)), "<H"
    elif data.startswith(b"\xff\xd8"):
        place, layout = max(data.find(marker) for marker in FRAME_MARKERS) + 5, ">H"
    else:
        place, layout = data.find(b"ispe") + 8, ">I"
    width = struct.calcsize(layout)
    for start in random.choice(((place,), (place + width,), (place, place + width))):
        if start + width <= len(data):
            struct.pack_into(layout, data, start, random.choice(NUMBERS) & (1 << 8 * width) - 1)


MUTATIONS: tuple[Callable[[bytearray, Random, bytes], None], ...] = (
    *(_flip_bits, _flip_bits, _set_run, _set_number, _insert, _delete, _copy_run, _truncate, _splice, _splice_part),
    *(_copy_part, _delete_part, _set_number_in_part, _set_number_in_part, _set_size_of_image),
)


def _write_number(data: bytearray, start: int, random: Random) -> None:
    width, order = random.choice((2, 4)), random.choice("<>")
    if start + width <= len(data):
        layout = f"{order}{'H' if width == 2 else 'I'}"
        struct.pack_into(layout, data, start, random.choice(NUMBERS) & (1 << 8 * width) - 1)


def _replace_part(data: bytearray, start: int, end: int, new: bytes) -> None:
    """Replace a part, and correct the sizes of the boxes around it."""
    if data[4:8] == b"ftyp":
        for box_start, box_end, _ in list(_boxes(data, 0, len(data))):
            if box_start < start and end <= box_end:
                struct.pack_into(">I", data, box_start, box_end - box_start + len(new) - (end - start))
    data[start:end] = new


def _choose(data: bytes | bytearray, random: Random) -> Part:
    parts = list(_parts(data))
    return random.choice(parts) if parts else (0, len(data))


def _parts(data: bytes | bytearray) -> Iterator[Part]:
    """Chunks, segments or boxes, as far as their sizes are right; none for BMP and GIF."""
    if data.startswith(b"\x89PNG"):
        yield from _sized(data, 8, lambda at: 12 + int.from_bytes(data[at : at + 4], "big"))
    elif data.startswith(b"RIFF"):
        yield from _sized(data, 12, lambda at: 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2)
    elif data.startswith(b"\xff\xd8"):
        yield from _segments(data)
    elif data[4:8] == b"ftyp":
        yield from ((start, end) for start, end, _ in _boxes(data, 0, len(data)))


def _sized(data: bytes | bytearray, start: int, size_at: Callable[[int], int]) -> Iterator[Part]:
    while start + 8 <= len(data) and (end := start + size_at(start)) <= len(data):
        yield start, end
        start = end


def _segments(data: bytes | bytearray) -> Iterator[Part]:
    """Segments of a JPEG; one of a scan includes its pixels."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] == 0xDA:
            while 0 <= (end := data.find(b"\xff", end)) < len(data) - 1 and data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 2
        if not start < end <= len(data):
            return
        yield start, end
        start = end


def _boxes(data: bytes | bytearray, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
    """Boxes with their kinds, and those inside of them."""
    while start + 8 <= stop:
        end = start + int.from_bytes(data[start : start + 4], "big")
        if not start + 8 <= end <= stop:
            return
        kind = bytes(data[start + 4 : start + 8])
        yield start, end, kind
        if kind in CONTAINERS:
            yield from _boxes(data, start + 8 + CONTAINERS[kind], end)
        start = end


def _repair(data: bytearray) -> None:
    """Correct the checksums of a PNG, and the size of a RIFF file."""
    if data.startswith(b"\x89PNG"):
        for start, end in _parts(data):
            struct.pack_into(">I", data, end - 4, zlib.crc32(data[start + 4 : end - 4]))
    elif data.startswith(b"RIFF") and len(data) >= 8:
        struct.pack_into("<I", data, 4, len(data) - 8)
