"""Removes metadata that does not affect the pixels from an encoded image: text, comments, colour profiles, thumbnails.

Pillow reads all metadata before the first pixel. It refuses a PNG with more than a megabyte of text or profile, and it
takes seconds for a file of very many tiny pieces. Here metadata is skipped by its length fields, in time linear in the
bytes. Pillow's limits for other code in this process do not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from trainer.images.png import has_wrong_checksum

# An image of 25 million pixels in chunks of 8 KB, as libpng writes them, has 25,000.
MAX_PIECES = 50_000

PNG_KEPT = (b"tRNS", b"eXIf")  # ancillary chunks that affect the pixels
JPEG_MARKER = re.compile(rb"\xff[\x01-\xfe]")
JPEG_WITHOUT_LENGTH = frozenset((0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
JPEG_SCAN, JPEG_APP, JPEG_EXIF = 0xDA, 0xE0, 0xE1
# Application segments that affect the pixels: marker → first bytes.
JPEG_KEPT = {JPEG_APP: b"JFIF\0", JPEG_EXIF: b"Exif\0\0", 0xEE: b"Adobe"}
GIF_BLOCK = re.compile(rb"[!,;]")
GIF_CONTROL = 0xF9
# An entry in the list of items: version 2, flags, number, protection, then the type.
AVIF_EXIF_ITEM = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)

Range = tuple[int, int]


def without_metadata(data: bytes, name: str) -> bytes:
    """`data` in the format `name`, without metadata; the same object if it has none.

    EXIF orientation stays. Raises ValueError for more than 50,000 pieces. Damaged parts stay: the decoder reports them.
    """
    if finder := FINDERS.get(name):
        metadata = finder(data)
    elif name == "AVIF" and b"Exif" in data:
        # libavif refuses an image with damaged EXIF; the rotation is in its own properties.
        return AVIF_EXIF_ITEM.sub(rb"\1skip", data)
    else:
        return data
    if not metadata:
        return data
    view, start, kept = memoryview(data), 0, []
    for begin, end in metadata:
        kept.append(view[start:begin])
        start = end
    kept.append(view[start:])
    return b"".join(kept)


def _png(data: bytes) -> list[Range]:
    """Ancillary chunks without PNG_KEPT, damaged EXIF, and bytes after the pixels that are no chunk.

    The chunks of an animation are ancillary, so that its first frame remains.
    """
    found: list[Range] = []
    start, size, has_pixels = 8, len(data), False
    for _ in range(MAX_PIECES):
        kind = data[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if kind == b"IEND":
            return found
        if end > size:
            # Pillow would refuse the file for them, although it has all pixels by then.
            return [*found, (start, size)] if has_pixels and kind != b"IDAT" else found
        damaged = kind == b"eXIf" and has_wrong_checksum(data, start)
        if kind[0] & 0x20 and (kind not in PNG_KEPT or damaged):
            found.append((start, end))
        has_pixels = has_pixels or kind == b"IDAT"
        start = end
    raise _too_many()


def _jpeg(data: bytes) -> list[Range]:
    """Comments, application segments without JPEG_KEPT, and bytes between segments, up to the first scan."""
    found: list[Range] = []
    position, has_exif = 2, False
    for _ in range(MAX_PIECES):
        marker = JPEG_MARKER.search(data, position)
        if not marker:
            return found
        start = marker.start()
        if start > position:
            found.append((position, start))
        code = data[start + 1]
        if code == JPEG_SCAN or code < 0xC0:
            return found
        position = start + 2
        if code in JPEG_WITHOUT_LENGTH:
            continue
        position += int.from_bytes(data[position : position + 2], "big")
        if position < start + 4:
            return found
        if code < JPEG_APP:
            continue
        needed = code in JPEG_KEPT and data.startswith(JPEG_KEPT[code], start + 4)
        if not needed or (code == JPEG_EXIF and has_exif):
            found.append((start, position))
        has_exif = has_exif or (needed and code == JPEG_EXIF)
    raise _too_many()


def _gif(data: bytes) -> list[Range]:
    """Extensions without the graphic control, and bytes between blocks, up to the first frame."""
    found: list[Range] = []
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    pieces = 0
    while (block := GIF_BLOCK.search(data, position)) and pieces < MAX_PIECES:
        start = block.start()
        if start > position:
            found.append((position, start))
        if block[0] != b"!":
            return found
        position = start + 2
        while (length := data[position : position + 1]) not in (b"", b"\0") and pieces < MAX_PIECES:
            position += 1 + length[0]
            pieces += 1
        position += 1
        pieces += 1
        if data[start + 1 : start + 2] != bytes((GIF_CONTROL,)):
            found.append((start, position))
    if block:
        raise _too_many()
    return found


FINDERS: dict[str, Callable[[bytes], list[Range]]] = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif}


def _too_many() -> ValueError:
    return ValueError(f"it is in more than {MAX_PIECES:,} pieces")
