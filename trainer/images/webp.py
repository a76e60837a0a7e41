"""WebP files that end early: libwebp refuses them, even if only metadata or a padding byte is missing."""

from __future__ import annotations

METADATA_CHUNKS = (b"EXIF", b"XMP ", b"ICCP")
HEADER_BYTES = 8  # of the file, and of each chunk: four characters and a size


def with_end(webp: bytes) -> bytes:
    """A file that is shorter than it says: without a last chunk of metadata that is cut off, and of the right length.

    The same object if it is complete. Missing pixels stay missing: the decoder reports them.
    """
    if len(webp) < 12 or HEADER_BYTES + int.from_bytes(webp[4:8], "little") <= len(webp):
        return webp
    start = 12
    while start + HEADER_BYTES <= len(webp):
        size = int.from_bytes(webp[start + 4 : start + 8], "little")
        end = start + HEADER_BYTES + size
        if end > len(webp):
            webp = webp[:start] if webp[start : start + 4] in METADATA_CHUNKS else webp
            break
        start = end + size % 2
    padding = b"\0" * (start - len(webp) == 1)
    return webp[:4] + (len(webp) + len(padding) - HEADER_BYTES).to_bytes(4, "little") + webp[8:] + padding
