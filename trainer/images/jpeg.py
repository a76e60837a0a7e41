"""JPEG files without their end marker (EOI), of which the complete ones are decoded, and files of very many scans.

libjpeg fills missing pixels with gray and reports nothing. A file without its end marker is therefore decoded with
several continuations: if all pixels are there, the decoder ignores what follows, and the results are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

END = b"\xff\xd9"
SCAN = b"\xff\xda"
SCAN_HEADER = re.compile(SCAN + rb"\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # length, number of components
# Pixels that all scans pass over: 20 scans of 25 million, where encoders write 10. A scan takes 17 ns a pixel, even one
# of 42 bytes.
MAX_SCANNED_PIXELS = 500_000_000
PADDING = bytes(16)  # of zeros, up to the full size: an interrupted download may leave it
# Two, as the bits of one may happen to decode to the same as no bits. In a scan with restart intervals, the decoder
# skips everything up to the marker that is due.
FILLERS = (b"\x5a\xc3\x96\x2d" * 32, b"\xfe" * 32)
RESTARTS = [bytes((0xFF, code)) for code in range(0xD0, 0xD8)]


def has_end(jpeg: bytes) -> bool:
    """Whether an end marker follows the last scan; compressed pixels never contain one."""
    return jpeg.rfind(END) > jpeg.rfind(SCAN)


def check_scans(jpeg: bytes, pixels: int) -> None:
    """Raise ValueError for more scans than so many pixels may have. Those of thumbnails and further images count."""
    scans = sum(1 for _ in SCAN_HEADER.finditer(jpeg))
    if scans * pixels > MAX_SCANNED_PIXELS:
        raise ValueError(f"{scans:,} scans are too many for {pixels:,} pixels")


def in_several_scans(jpeg: bytes, components: int) -> bool:
    """Whether a file is progressive or stores its components one after the other."""
    first = jpeg.find(SCAN)
    return first >= 0 and (jpeg[first + 4 : first + 5] != bytes((components,)) or jpeg.find(SCAN, first + 2) >= 0)


def with_end(jpeg: bytes) -> bytes:
    """A file without its end marker, with one."""
    return _without_padding(jpeg) + END


def continuations(jpeg: bytes) -> Iterator[bytes]:
    """A file without its end marker, continued in other ways."""
    for filler in FILLERS:
        yield b"".join([_without_padding(jpeg), *(filler + restart for restart in RESTARTS), filler, END])


def _without_padding(jpeg: bytes) -> bytes:
    # A last 0xff would form a marker with what follows.
    return (jpeg.rstrip(b"\0") if jpeg.endswith(PADDING) else jpeg).rstrip(b"\xff")
