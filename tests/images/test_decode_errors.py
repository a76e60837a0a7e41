from __future__ import annotations

import contextlib
import gzip
import pickle
import struct
import sys
from typing import Any

import numpy as np
import pytest
from encoded_images import COLOUR, DIGIT, chunk, encode, error_code, gradient, png
from PIL import Image

from trainer.errors import ImageError
from trainer.images.decode import EncodedImage, decode
from trainer.images.pixels import PixelSpec


def test_empty_and_unsupported_files_are_refused() -> None:
    assert error_code(b"") == "empty_body"
    others = [
        b"hello",
        b"BM is how this text begins, and it is long enough",
        b"http://127.0.0.1/x.png",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encode(gradient(), "TIFF"),
        encode(gradient(), "ICO"),
        encode(gradient(), "PPM"),
        pickle.dumps([1]),
        gzip.compress(b"x"),
        b"RIFF\0\0\0\0WAVEfmt ",
    ]
    assert {error_code(data) for data in others} == {"unsupported_type"}


def test_heic_is_refused_by_name_where_its_package_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = encode(gradient(), "HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pillow-heif") as caught:
        decode(heic, COLOUR)
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WebP", "HEIC", "AVIF"])
def test_truncated_files_are_corrupt(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encode(noise, format)
    for end in (len(data) // 2, len(data) - len(data) // 8, 40):
        assert error_code(data[:end]) == "corrupt_image"


@pytest.mark.parametrize("width", [40, 41, 42, 43])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
def test_a_webp_with_all_pixels_needs_no_intact_end(options: dict[str, Any], width: int) -> None:
    spec = PixelSpec(30, width, 3)
    data = encode(gradient(width=width, height=30), "WebP", **options)
    expected = decode(data, spec)
    intact = [data[:4] + struct.pack("<I", len(data) + 100) + data[8:]]
    pixels_bytes = struct.unpack("<I", data[16:20])[0]
    if pixels_bytes % 2:
        intact.append(data[:-1])  # the padding byte
    with_metadata = encode(gradient(width=width, height=30), "WebP", xmp=b"x" * 501, **options)
    intact += [with_metadata[:-missing] for missing in (1, 2, 30, 500)]
    for file in intact:
        np.testing.assert_array_equal(decode(file, spec), expected)
    for missing in (1 + pixels_bytes % 2, 8, len(data) // 2):
        assert error_code(data[:-missing], spec) == "corrupt_image"


def noisy_gradient(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 3))
    pixels = np.asarray(gradient(width=128, height=96)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_a_jpeg_with_all_pixels_needs_no_end(mode: str, options: dict[str, Any]) -> None:
    data = encode(noisy_gradient(mode), "JPEG", **options)
    full = PixelSpec(96, 128, 3)
    for spec in (full, PixelSpec(12, 16, 1), DIGIT):
        expected = decode(data, spec)
        for end in (b"", b"\xff", bytes(500), b"\xff" + bytes(500)):
            np.testing.assert_array_equal(decode(data[:-2] + end, spec), expected)
    for missing in (4, 7, 12, 30, 100, len(data) // 3, len(data) // 2):
        for end in (b"", bytes(500)):
            if options or mode == "CMYK":  # the last bytes may refine nothing
                with contextlib.suppress(ImageError):
                    np.testing.assert_array_equal(decode(data[:-missing] + end, full), decode(data, full))
            else:
                assert error_code(data[:-missing] + end, full) == "corrupt_image"
    assert error_code(data[: len(data) // 2], full) == "corrupt_image"


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_a_png_with_a_wrong_checksum_in_its_pixels_is_corrupt(kind: bytes) -> None:
    palette = chunk(b"PLTE", bytes([7, 7, 7])) + chunk(b"tRNS", b"\xff")
    data = bytearray(png(1, 1, 8, 3, b"\0\0", palette))
    assert decode(bytes(data), PixelSpec(1, 1, 1)).ravel().tolist() == [7]
    start = data.index(kind)
    length = struct.unpack(">I", data[start - 4 : start])[0]
    data[start + 4 + length] ^= 1
    assert error_code(bytes(data)) == "corrupt_image"


@pytest.mark.parametrize("end", [b"", b"IEND", chunk(b"IEND")[:-1], chunk(b"IEND")[:-1] + b"?", b"junk" * 9, bytes(99)])
def test_a_png_with_all_pixels_needs_no_intact_end(end: bytes) -> None:
    data = encode(gradient(), "PNG")
    np.testing.assert_array_equal(decode(data[:-12] + end, COLOUR), np.asarray(gradient()))
    assert error_code(data[:-30] + end) == "corrupt_image"


@pytest.mark.parametrize("side", [5001, 10_000, 30_000])
def test_too_many_pixels_are_refused_by_the_header(side: int) -> None:
    """Also above the limits of Pillow, which warn (an error in these tests) or raise."""
    assert error_code(png(side, side, 8, 2, b"")) == "too_many_pixels"
    bmp = bytearray(encode(gradient(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    assert error_code(bytes(bmp)) == "too_many_pixels"
    gif = bytearray(encode(gradient("L"), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    assert error_code(bytes(gif)) == "too_many_pixels"
    for format in ("HEIC", "AVIF"):
        data = bytearray(encode(gradient(width=64, height=64), format))
        place = data.index(b"ispe") + 8
        data[place : place + 8] = struct.pack(">II", side, side)
        # libavif refuses more than 268 million pixels without naming the reason.
        assert error_code(bytes(data)) == ("corrupt_image" if format == "AVIF" and side > 16384 else "too_many_pixels")


def test_a_heic_with_more_pixels_than_its_header_says_is_corrupt() -> None:
    data = bytearray(encode(gradient(width=480, height=320), "HEIC"))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", 16, 16)
    assert error_code(bytes(data)) == "corrupt_image"


def test_a_gif_frame_larger_than_its_screen_is_refused() -> None:
    gif = bytearray(encode(gradient("L"), "GIF"))
    frame = gif.index(b"\x2c", 13)
    gif[frame + 5 : frame + 9] = struct.pack("<HH", 20_000, 20_000)
    assert error_code(bytes(gif)) == "too_many_pixels"


def test_an_image_of_exactly_the_limit_is_read() -> None:
    assert EncodedImage(png(5000, 5000, 8, 0, b"")).info.width == 5000


def test_the_limit_of_pillow_does_not_change() -> None:
    before = Image.MAX_IMAGE_PIXELS
    error_code(png(30_000, 30_000, 8, 2, b""))
    assert before == Image.MAX_IMAGE_PIXELS


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ImageError("corrupt_image", "why")))
    assert (error.code, str(error)) == ("corrupt_image", "why")
