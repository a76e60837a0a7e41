"""The supported image formats: recognized by their first bytes, opened by the Pillow class of each.

Image.open is not used: it tries other plugins, and it has its own limit on pixels.
"""

from __future__ import annotations

from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from trainer.errors import ImageError

FORMATS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
# Valid sizes of the second header of a BMP; "BM" alone may begin a text.
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)

# Brands of an ISO base media file. The general brands of MIAF mostly hold HEVC.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"
)
GENERAL_BRANDS = (b"mif1", b"msf1")
MAX_BRANDS = 64


def format_of(data: bytes) -> str:
    """Name of the format of an encoded image. Raises ImageError `empty_body` or `unsupported_type`."""
    if not data:
        raise ImageError("empty_body", "the image is empty: 0 bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[4:8] == b"ftyp" and (name := _format_of_brands(data)):
        return name
    raise ImageError(
        "unsupported_type",
        "not an image of a supported type: JPEG, PNG, WebP, HEIC, AVIF, BMP or GIF is expected",
    )


def _format_of_brands(data: bytes) -> str | None:
    """Name of the format of an ISO base media file; None for a video and any other unsupported type."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 16 + 4 * MAX_BRANDS)
    brands = [data[8:12], *(data[start : start + 4] for start in range(16, end, 4))]
    for brand in brands:
        if brand in BRANDS:
            return BRANDS[brand]
    return "HEIC" if any(brand in GENERAL_BRANDS for brand in brands) else None


def format_class(name: str) -> type[ImageFile.ImageFile]:
    """The Pillow class that opens the format `name`: it reads the header and decodes no pixels.

    Raises ImageError `unsupported_type` for HEIC without pillow-heif, which an image may leave out.
    """
    if name != "HEIC":
        return FORMATS[name]
    try:
        # The import takes 28 ms and 5 MB, and most processes never need it.
        from pillow_heif import HeifImageFile
    except ModuleNotFoundError:
        raise ImageError("unsupported_type", "HEIC is not supported here: pillow-heif is not installed") from None
    return HeifImageFile
