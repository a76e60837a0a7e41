from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from encoded_images import COLOUR, chunk, encode
from PIL import Image, ImageFile, PngImagePlugin

from trainer.errors import ImageError
from trainer.images.decode import EncodedImage, decode
from trainer.images.metadata import MAX_PIECES, without_metadata
from trainer.images.pixels import PixelSpec

TEN_MEGABYTES = 10 << 20


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8))


def encode_noise(format: str, **options: Any) -> bytes:
    return encode(noise(), format, **options)


def segment(code: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


def orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


# --- PNG

LARGE = zlib.compress(bytes(3 * ImageFile.SAFEBLOCK))
LARGE_METADATA = {
    "iCCP": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "zTXt": chunk(b"zTXt", b"key\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"key\0\1\0\0\0" + LARGE),
    "tEXt": chunk(b"tEXt", b"key\0" + bytes(TEN_MEGABYTES)),
    "many": 80 * chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(ImageFile.SAFEBLOCK))),
}


@pytest.mark.parametrize("place", ["before the pixels", "after them"])
@pytest.mark.parametrize("kind", LARGE_METADATA)
def test_large_png_metadata_is_skipped(kind: str, place: str) -> None:
    data = encode_noise("PNG")
    at = data.index(b"IDAT" if place == "before the pixels" else b"IEND") - 4
    bloated = data[:at] + LARGE_METADATA[kind] + data[at:]
    np.testing.assert_array_equal(decode(bloated, COLOUR), np.asarray(noise()))
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK  # Pillow's limit holds for the whole process


def test_png_transparency_and_orientation_are_kept() -> None:
    data = encode_noise("PNG", exif=orientation(6), dpi=(300, 300))
    assert (EncodedImage(data).info.width, EncodedImage(data).info.height) == (4, 6)
    palette = io.BytesIO()
    noise().quantize(8).save(palette, "PNG", transparency=0)
    stripped = without_metadata(data, "PNG")
    assert b"eXIf" in stripped
    assert b"pHYs" not in stripped
    assert without_metadata(palette.getvalue(), "PNG") == palette.getvalue()


@pytest.mark.parametrize("place", ["before the pixels", "after them"])
@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"gAMA", b"tIME", b"acTL", b"eXIf", b"xxXx"]
)
def test_metadata_with_a_wrong_checksum_is_skipped(kind: bytes, place: str) -> None:
    data = encode_noise("PNG")
    at = data.index(b"IDAT" if place == "before the pixels" else b"IEND") - 4
    contents = orientation(6).removeprefix(b"Exif\0\0") if kind == b"eXIf" else b"a\0b"
    damaged = data[:at] + chunk(kind, contents)[:-1] + b"?" + data[at:]
    np.testing.assert_array_equal(decode(damaged, COLOUR), np.asarray(noise()))


# --- JPEG


def test_jpeg_metadata_is_skipped_and_colour_segments_are_kept() -> None:
    data = encode_noise("JPEG", quality=100, exif=orientation(3), icc_profile=bytes(200_000), comment=b"words")
    extra = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000)) + segment(0xED, bytes(60_000))
    bloated = data[:2] + extra + data[2:]
    stripped = without_metadata(bloated, "JPEG")
    assert len(stripped) < len(data) - 200_000
    assert b"JFIF" in stripped
    assert b"Exif" in stripped
    for spec in (COLOUR, PixelSpec(28, 28, 1, normalize="mnist")):
        np.testing.assert_array_equal(decode(bloated, spec), decode(data, spec))
    cmyk = io.BytesIO()
    noise().convert("CMYK").save(cmyk, "JPEG", quality=100)
    assert b"Adobe" in without_metadata(cmyk.getvalue(), "JPEG")


def test_an_image_without_metadata_is_not_copied() -> None:
    for format in ("PNG", "JPEG", "GIF", "BMP", "WebP"):
        data = encode_noise(format)
        assert without_metadata(data, format) is data


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\xff\0", b"\x01\x02"])
def test_junk_between_jpeg_segments_is_skipped(junk: bytes) -> None:
    data = encode_noise("JPEG")
    filled = data[:20] + junk * (1 << 20) + data[20:]  # after JFIF's
    assert without_metadata(filled, "JPEG") == data  # Pillow would search it byte by byte
    assert decode(filled, COLOUR).tolist() == decode(data, COLOUR).tolist()


# --- very many pieces, on which Pillow spends seconds to minutes


TINY_PIECES = {
    "EXIF segments": (b"\xff\xe1", segment(0xE1, b"Exif\0\0" + bytes(90))),
    "empty APP5 segments": (b"\xff\xe5", segment(0xE5)),
    "empty comments": (b"\xff\xfe", segment(0xFE)),
    "PNG chunks": (b"teXt", chunk(b"teXt")),
    "PNG pixel chunks": (b"IDAT", chunk(b"IDAT")),
    "GIF comments": (b"!\xfe", b"!\xfe\x01a\0"),
}


@pytest.mark.parametrize("kind", TINY_PIECES)
def test_very_many_pieces_are_refused_before_pillow_reads_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, piece = TINY_PIECES[kind]
    format = {"\xff": "JPEG", "!": "GIF"}.get(chr(marker[0]), "PNG")
    data = encode_noise(format)
    at = {"JPEG": 2, "PNG": 33, "GIF": 13 + (3 << (data[10] & 7) + 1)}[format]
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow reads it"))
    with pytest.raises(ImageError, match=f"more than {MAX_PIECES:,} pieces") as error:
        EncodedImage(data[:at] + piece * (TEN_MEGABYTES // len(piece)) + data[at:])
    assert error.value.code == "corrupt_image"


def test_many_pieces_are_removed_before_pillow_reads_them() -> None:
    for format, (_, piece) in itertools.product(("JPEG", "PNG", "GIF"), TINY_PIECES.values()):
        if (format == "JPEG") != (piece[:1] == b"\xff") or (format == "GIF") != (piece[:1] == b"!"):
            continue
        if b"IDAT" in piece:
            continue
        data = encode_noise(format)
        at = {"JPEG": 2, "PNG": 33, "GIF": 13 + (3 << (data[10] & 7) + 1)}[format]
        many = data[:at] + piece * 10_000 + data[at:]
        assert len(without_metadata(many, format)) <= len(data) + len(piece)  # one EXIF segment remains
        np.testing.assert_array_equal(decode(many, COLOUR), decode(data, COLOUR))


# --- GIF and AVIF


def test_gif_comments_and_application_extensions_are_skipped() -> None:
    frames = [Image.new("P", (6, 4), index) for index in (1, 2)]
    for frame in frames:
        frame.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    buffer = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "loop": 0, "transparency": 2}
    frames[0].save(buffer, "GIF", comment=b"words" * 100, **options)
    data = buffer.getvalue()
    stripped = without_metadata(data, "GIF")
    assert b"words" not in stripped
    assert b"NETSCAPE" not in stripped
    assert (decode(data, COLOUR) == [40, 50, 60]).all()
    with pytest.raises(ImageError):
        decode(data[:30], COLOUR)


def test_damaged_exif_in_avif_is_skipped() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    data = encode_noise("AVIF", exif=exif)
    damaged = data.replace(b"MM\0*", b"????")
    assert damaged != data
    with pytest.raises(ValueError, match="Exif"):
        Image.open(io.BytesIO(damaged))
    assert EncodedImage(damaged).info == EncodedImage(data).info
    assert EncodedImage(damaged).info.height == 6
