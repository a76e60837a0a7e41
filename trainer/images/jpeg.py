"""JPEG files without their end marker (EOI): the complete ones are decoded, the truncated ones refused.

libjpeg fills missing pixels with gray and reports nothing. A file without its end marker is therefore decoded with
several continuations: if all pixels are there, the decoder ignores what follows, and the results are equal.
"""

from __future__ import annotations

from collections.abc import Iterator

END = b"\xff\xd9"
SCAN = b"\xff\xda"
PADDING = bytes(16)  # of zeros, up to the full size: an interrupted download may leave it
# Two, as the bits of one may happen to decode to the same as no bits. In a scan with restart intervals, the decoder
# skips everything up to the marker that is due.
FILLERS = (b"\x5a\xc3\x96\x2d" * 32, b"\xfe" * 32)
RESTARTS = [bytes((0xFF, code)) for code in range(0xD0, 0xD8)]


def has_end(jpeg: bytes) -> bool:
    """Whether an end marker follows the last scan; compressed pixels never contain one."""
    return jpeg.rfind(END) > jpeg.rfind(SCAN)


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
