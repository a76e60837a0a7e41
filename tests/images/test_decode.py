from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from encoded_images import COLOUR, DIGIT, GRAY, LOSSLESS, bmp, chunk, encode, error_code, gradient, png
from PIL import Image
from pillow_heif import from_bytes, from_pillow

from trainer.images.decode import EncodedImage, ImageInfo, decode
from trainer.images.pixels import PixelSpec


@pytest.mark.parametrize("format", ["PNG", "BMP", "WebP", "GIF", "HEIC"])
def test_lossless_formats_give_exact_pixels(format: str) -> None:
    image = gradient()
    data = encode(image, format, **LOSSLESS.get(format, {}))
    np.testing.assert_array_equal(decode(data, COLOUR), np.asarray(image))
    assert EncodedImage(data).info == ImageInfo(format, 6, 4, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_what_pillow_decodes(options: dict[str, Any]) -> None:
    data = encode(gradient(), "JPEG", quality=95, **options)
    np.testing.assert_array_equal(decode(data, COLOUR), np.asarray(Image.open(io.BytesIO(data))))
    assert EncodedImage(data).info == ImageInfo("JPEG", 6, 4, 3)


def test_avif_is_what_pillow_decodes() -> None:
    data = encode(gradient(), "AVIF", quality=100, subsampling="4:4:4")
    np.testing.assert_array_equal(decode(data, COLOUR), np.asarray(Image.open(io.BytesIO(data))))
    np.testing.assert_allclose(decode(data, COLOUR).astype(int), np.asarray(gradient()), atol=4)
    assert EncodedImage(data).info == ImageInfo("AVIF", 6, 4, 3)


@pytest.mark.parametrize("format", ["HEIC", "AVIF"])
def test_brands_tell_heic_and_avif_from_videos(format: str) -> None:
    data = encode(gradient(), format)
    size = struct.unpack(">I", data[:4])[0]
    assert data[4:8] == b"ftyp"
    others = data[16:size]

    def branded(major: bytes, compatible: bytes) -> bytes:
        """The file with other brands, of the same length: offsets in the file stay valid."""
        return data[:8] + major + data[12:16] + compatible.ljust(len(others), b"\0")[: len(others)] + data[size:]

    coding = b"heic" if format == "HEIC" else b"avif"
    assert EncodedImage(branded(b"mif1", b"miaf" + coding)).info.format == format
    assert EncodedImage(branded(coding, coding)).info.format == format
    for major in (b"isom", b"qt  ", b"M4V "):
        assert error_code(branded(major, b"mp42")) == "unsupported_type"
    assert error_code(data[:4] + b"free" + data[8:]) == "unsupported_type"


def test_the_result_is_uint8_of_the_specified_shape() -> None:
    for spec in (GRAY, COLOUR, PixelSpec(7, 3, 3), DIGIT):
        pixels = decode(encode(gradient(), "PNG"), spec)
        assert pixels.shape == (spec.height, spec.width, spec.channels)
        assert pixels.dtype == np.uint8


def test_colour_becomes_luma_and_gray_is_repeated() -> None:
    red = encode(Image.new("RGB", (6, 4), (255, 0, 0)), "PNG")
    assert (decode(red, GRAY) == 76).all()
    gray = gradient("L")
    for format in ("PNG", "BMP", "GIF"):
        assert EncodedImage(encode(gray, format)).info.channels == (3 if format == "GIF" else 1)  # a palette is colour
        assert (decode(encode(gray, format), COLOUR) == np.asarray(gray)[:, :, None]).all()
    for format in ("HEIC", "AVIF"):
        data = encode(gray, format, quality=100)
        assert EncodedImage(data).info.channels == 1
        np.testing.assert_allclose(decode(data, COLOUR).astype(int), np.asarray(gray)[:, :, None].repeat(3, 2), atol=3)


def test_a_colour_file_with_gray_pixels_is_colour() -> None:
    assert EncodedImage(encode(gradient("L").convert("RGB"), "PNG")).info.channels == 3


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (6, 4), (0, 100, 200, 0))
    image.putpixel((0, 0), (0, 100, 200, 255))
    image.putpixel((1, 0), (0, 100, 200, 128))
    for format in ("PNG", "WebP", "HEIC"):
        pixels = decode(encode(image, format, **LOSSLESS.get(format, {})), COLOUR)
        assert pixels[0, 0].tolist() == [0, 100, 200]
        np.testing.assert_allclose(pixels[0, 1], [127, 177, 227], atol=1)
        assert (pixels[1:] == 255).all()
    pixels = decode(encode(image, "AVIF", quality=100, subsampling="4:4:4"), COLOUR)
    np.testing.assert_allclose(pixels[0, :2].astype(int), [[0, 100, 200], [127, 177, 227]], atol=6)
    assert (pixels[1:] >= 250).all()
    gray = Image.new("LA", (6, 4), (0, 0))
    gray.putpixel((2, 1), (50, 255))
    pixels = decode(encode(gray, "PNG"), GRAY)
    assert pixels[1, 2, 0] == 50
    assert (np.delete(pixels.ravel(), 8) == 255).all()
    assert EncodedImage(encode(gray, "PNG")).info.channels == 1


def test_transparent_palettes_and_colour_keys_are_composited_over_white() -> None:
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    for format in ("PNG", "GIF"):
        pixels = decode(encode(palette, format, transparency=1), COLOUR)
        assert pixels[0, 0].tolist() == [10, 20, 30]
        assert (pixels[1:] == 255).all()
    several = decode(encode(palette, "PNG", transparency=bytes([255, 0])), COLOUR)
    assert (several[1:] == 255).all()
    key = decode(png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))), PixelSpec(1, 2, 3))
    assert key.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
def test_a_bmp_whose_alpha_is_zero_throughout_is_opaque(header_bytes: int) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., :3] = np.asarray(gradient())[::-1, :, ::-1]
    data = bmp(pixels.tobytes(), 6, 4, header_bytes)
    np.testing.assert_array_equal(decode(data, COLOUR), np.asarray(gradient()))
    np.testing.assert_array_equal(decode(data, GRAY)[:, :, 0], np.asarray(gradient("L")))
    pixels[-1, 0, 3] = 255  # with any alpha, all of it counts
    decoded = decode(bmp(pixels.tobytes(), 6, 4, header_bytes), COLOUR)
    assert decoded[0, 0].tolist() == np.asarray(gradient())[0, 0].tolist()
    assert (decoded.reshape(-1, 3)[1:] == 255).all()


def test_one_bit_and_sixteen_bits() -> None:
    one = png(8, 1, 1, 0, b"\0\xa0")
    assert decode(one, PixelSpec(1, 8, 1)).ravel().tolist() == [255, 0, 255, 0, 0, 0, 0, 0]
    assert EncodedImage(one).info.channels == 1
    bitmap = gradient("L").point(lambda value: 255 * (value > 60)).convert("1")
    for format in ("PNG", "BMP"):
        np.testing.assert_array_equal(decode(encode(bitmap, format), GRAY)[:, :, 0], np.asarray(bitmap) * 255)
    deep = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x12FF, 0xFE01))
    assert decode(deep, PixelSpec(1, 2, 1)).ravel().tolist() == [0x12, 0xFE]
    assert EncodedImage(deep).info.channels == 1
    for_heif = Image.fromarray((np.arange(24, dtype=np.uint16) * 2600).reshape(4, 6))
    pixels = decode(encode(for_heif, "HEIC", quality=-1), GRAY)
    np.testing.assert_allclose(pixels[:, :, 0].astype(int), np.asarray(for_heif) >> 8, atol=2)
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x12FF, 0x3400, 0xFEFF))
    assert decode(colour, PixelSpec(1, 1, 3)).ravel().tolist() == [0x12, 0x34, 0xFE]


def test_cmyk_is_converted_without_a_profile() -> None:
    data = encode(Image.new("CMYK", (6, 4), (255, 0, 0, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(decode(data, COLOUR)[0, 0], [0, 255, 255], atol=3)
    assert EncodedImage(data).info.channels == 3


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    for format in ("GIF", "PNG", "WebP", "AVIF"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **LOSSLESS.get(format, {}))
        np.testing.assert_allclose(decode(data, COLOUR)[0, 0].astype(int), [255, 0, 0], atol=3 * (format == "AVIF"))


def test_the_primary_image_of_a_heic() -> None:
    several = from_pillow(Image.new("RGB", (16, 16), "red"))
    several.add_from_pillow(Image.new("RGB", (16, 16), "blue"))
    buffer = io.BytesIO()
    several.save(buffer, primary_index=1, **LOSSLESS["HEIC"])
    assert decode(buffer.getvalue(), COLOUR)[0, 0].tolist() == [0, 0, 255]


# --- size


def test_resize_is_pillows_bilinear_stretch() -> None:
    image = gradient(width=50, height=20)
    expected = np.asarray(image.resize((6, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(encode(image, "PNG"), COLOUR), expected)


def test_shrinking_averages() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (400, 200)))
    pixels = decode(encode(stripes, "PNG"), PixelSpec(8, 8, 1))
    np.testing.assert_allclose(pixels, 127.5, atol=3)


def test_a_large_jpeg_decoded_at_a_fraction_gives_nearly_the_same_pixels() -> None:
    image = gradient(width=16, height=16).resize((1600, 1600), Image.Resampling.BICUBIC)
    data = encode(image, "JPEG", quality=95)
    full = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), np.int16)
    np.testing.assert_allclose(decode(data, PixelSpec(16, 16, 3)), full, atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "HEIC", "AVIF"])
def test_exif_orientation(orientation: int, format: str) -> None:
    """A rotated image with the EXIF tag that rotates it back decodes to the upright image.

    Pillow and pillow-heif also write the tag as the rotation and mirroring of a HEIC or an AVIF.
    """
    upright = gradient(width=48, height=32)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format == "HEIC":
        data = encode_rotated_heic(stored, orientation)
    else:
        lossy: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": 100, "subsampling": 0},
            "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        }
        data = encode(stored, format, exif=exif, **(lossy | LOSSLESS).get(format, {}))
    info = EncodedImage(data).info
    assert (info.width, info.height) == (48, 32)
    expected = np.asarray(upright.resize((12, 8), Image.Resampling.BILINEAR), np.int16)
    tolerance = 6 if format == "JPEG" else 3  # a JPEG is decoded at a fraction
    np.testing.assert_allclose(decode(data, PixelSpec(8, 12, 3)), expected, atol=tolerance)


def encode_rotated_heic(stored: Image.Image, orientation: int) -> bytes:
    """`from_pillow` would rotate the pixels; `from_bytes` keeps them, and the encoder writes the rotation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = from_bytes("RGB", stored.size, stored.tobytes())
    buffer = io.BytesIO()
    file.save(buffer, exif=exif.tobytes(), **LOSSLESS["HEIC"])
    data = buffer.getvalue()
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    return data


def test_exif_alone_does_not_rotate_a_heic() -> None:
    """Its own properties do: a reader that applies both rotates a telephone's photo twice."""
    exif = Image.Exif()
    exif[0x0112] = 1
    upright, turned = b"\x01\x12\0\3\0\0\0\1\0\1", b"\x01\x12\0\3\0\0\0\1\0\6"
    data = encode(gradient(width=48, height=32), "HEIC", exif=exif.tobytes())
    assert data.count(upright) == 1
    info = EncodedImage(data.replace(upright, turned)).info
    assert (info.width, info.height) == (48, 32)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""])
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(encode(gradient(), "JPEG", exif=exif), COLOUR).shape == (4, 6, 3)
