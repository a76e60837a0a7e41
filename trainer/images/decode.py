"""Encoded image bytes → uint8 pixels: the one decoder, for training and serving.

Both follow the same rules, so that a file gives the same array in both:

- The bytes decide the format, not the file name or the Content-Type: JPEG, PNG, WebP, HEIC (and other HEIF with HEVC
  inside), AVIF, BMP, GIF. A file with several images gives the first; a HEIC gives its primary image.
- At most 25 million pixels, read from the header before anything is decoded.
- EXIF orientation is applied. HEIC and AVIF use their own rotation and mirroring instead.
- Colour profiles, text and thumbnails are ignored, even if they are large or damaged.
- 16 bits become 8 by the high byte; in gray files, by the upper 8 of the bits that the data set uses (PixelSpec.bits).
  1 bit becomes 0 and 255, CMYK is converted without a profile.
- Transparency (alpha, palette or colour key) is composited over white; a 16-bit colour key is ignored, and so is the
  alpha of a BMP if it is 0 throughout: many programs write no alpha there.
- Gray is ITU-R 601 luma; a gray image in a colour model is repeated in all three channels.
- The image is stretched to the model's size by Pillow's bilinear filter, which averages when it shrinks; with `resize:
  pad`, to the largest size of its own proportions within that, and padded. A JPEG is first decoded at 1/2, 1/4 or 1/8
  if that is no smaller (for `mnist`, than twice its working size). An image so narrow that widening it first would
  give more than 25 million pixels is shortened first.
- `normalize: mnist` replaces the last step by `normalize_mnist`.
"""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from trainer.errors import ImageError
from trainer.images import avif, bmp, jpeg, webp
from trainer.images.formats import format_class, format_of
from trainer.images.metadata import without_metadata
from trainer.images.mnist import MNIST_WORKING_SIDE, normalize_mnist
from trainer.images.orientation import UPRIGHT, exif_orientation
from trainer.images.padding import pad, size_within
from trainer.images.pixels import DEPTHS, PixelSpec
from trainer.images.png import check_checksums

MAX_PIXELS = 25_000_000

# Peak bytes of memory for each pixel while decoding: (opaque, with transparency). Measured; tests check them.
PIXEL_BYTES = {"PNG": (7, 14), "GIF": (7, 14), "BMP": (7, 14), "WebP": (18, 18), "AVIF": (14, 18), "HEIC": (18, 18)}
JPEG_PIXEL_BYTES = 8  # for each pixel of the reduced size at which it is decoded
JPEG_CHECK_BYTES = 4  # in addition, for a JPEG without its end, which is decoded again
MNIST_PIXEL_BYTES = 2  # in addition
RESULT_BYTES = 8  # for each pixel of the model's size
ROW_BYTES = 32  # Pillow stores a pointer for each row of an image, and decoding makes up to four images
DECODING_OVERHEAD = 6 << 20


class ImageInfo(NamedTuple):
    """Facts from the header of an image."""

    format: str  # JPEG | PNG | WebP | HEIC | AVIF | BMP | GIF
    width: int  # in pixels, upright
    height: int
    channels: int  # 1 if the mode of the file is gray, else 3; a palette is colour


class EncodedImage:
    """An image whose header was read and whose pixels are not decoded yet.

    Raises ImageError `empty_body`, `unsupported_type`, `too_many_pixels`, or `corrupt_image`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        name = format_of(data)
        self._lacks_end = name == "JPEG" and not jpeg.has_end(data)
        if name == "WebP":
            data = webp.with_end(data)
        self._image = _open(jpeg.with_end(data) if self._lacks_end else data, name)
        # pillow-heif turns the image itself.
        self.orientation = 1 if name == "HEIC" else exif_orientation(self._image)
        self.info = _info(name, self._image, self.orientation)
        self.used_bits = 0  # of a 16-bit gray image, once it is decoded: the fewest of DEPTHS that hold its values

    def decoding_bytes(self, spec: PixelSpec) -> int:
        """Upper bound of the memory that `decode` takes in addition to the encoded bytes."""
        image = self._image
        size = DECODING_OVERHEAD + RESULT_BYTES * spec.height * spec.width + ROW_BYTES * image.height
        pixels = image.width * image.height
        if spec.normalize == "mnist":
            size += MNIST_PIXEL_BYTES * pixels
        if not isinstance(image, JpegImageFile):
            return size + pixels * PIXEL_BYTES[self.info.format][image.has_transparency_data]
        if jpeg.in_several_scans(self._data, image.layers):
            size += 2 * image.layers * pixels  # the decoder holds all coefficients
        self._draft(spec)
        if self._lacks_end:
            size += 3 * len(self._data) + JPEG_CHECK_BYTES * image.width * image.height
        return size + JPEG_PIXEL_BYTES * image.width * image.height

    def decode(self, spec: PixelSpec) -> NDArray[np.uint8]:
        """Pixels uint8 [spec.height, spec.width, spec.channels], read-only. Otherwise like `render`."""
        image = self._load(spec)
        if spec.normalize == "mnist":
            return normalize_mnist(np.asarray(image))[:, :, None]
        return np.asarray(image).reshape(spec.shape)

    def render(self, spec: PixelSpec) -> Image.Image:
        """The decoded image of mode L or RGB in the size of `spec`. Can be called once: it consumes the open file.

        Raises ImageError `corrupt_image` if the image does not decode to its end (truncated, or a wrong checksum).
        """
        image = self._load(spec)
        return Image.fromarray(normalize_mnist(np.asarray(image))) if spec.normalize == "mnist" else image

    def _load(self, spec: PixelSpec) -> Image.Image:
        """The upright image of mode L or RGB, in the size of `spec` unless it is still to be normalized."""
        image: Image.Image = self._image
        try:
            if self.info.format == "PNG":
                check_checksums(self._data)
            if self.info.format == "BMP":
                bmp.check_run_lengths(self._data, self._image)
            if self.info.format == "JPEG":
                jpeg.check_scans(self._data, self.info.width * self.info.height)
                self._draft(spec)
            image.load()
            if self._lacks_end:
                self._check_complete(spec)
            if self.info.format == "BMP" and image.mode == "RGBA" and not image.getbbox(alpha_only=True):
                image = image.convert("RGB")
            if image.mode == "I;16":
                image = self._to_8_bits(image, spec.bits)
            flat = _flatten(image, gray=spec.channels == 1)
        except Exception as error:
            raise _corrupt(self.info.format, error) from error
        size = self._size_before_turning(spec)
        if spec.normalize != "mnist" and flat.size != size:
            if flat.height * size[0] > MAX_PIXELS:
                flat = flat.resize((flat.width, size[1]), Image.Resampling.BILINEAR)
            flat = flat.resize(size, Image.Resampling.BILINEAR)
        if self.orientation in UPRIGHT:
            flat = flat.transpose(UPRIGHT[self.orientation])
        if spec.resize == "pad":
            flat = pad(flat, (spec.width, spec.height))
        return flat.convert("RGB") if spec.channels == 3 and flat.mode == "L" else flat

    def _to_8_bits(self, image: Image.Image, bits: int) -> Image.Image:
        """A 16-bit gray image → `L`, by the upper 8 of its lower `bits`; larger values become 255."""
        values = np.array(image, np.uint16)
        largest = int(values.max())
        self.used_bits = next(depth for depth in DEPTHS if largest < 1 << depth)
        np.minimum(values, (1 << bits) - 1, out=values)
        values >>= bits - 8
        return Image.fromarray(values.astype(np.uint8))

    def _check_complete(self, spec: PixelSpec) -> None:
        """Raise ValueError if pixels of a JPEG without its end are missing; see `trainer.images.jpeg`."""
        checksum = zlib.crc32(np.asarray(self._image).data)
        for continued in jpeg.continuations(self._data):
            other = EncodedImage(continued)
            other._draft(spec)
            other._image.load()
            if zlib.crc32(np.asarray(other._image).data) != checksum:
                raise ValueError("it ends early")

    def _draft(self, spec: PixelSpec) -> None:
        """Let the JPEG decoder halve the image while the result is no smaller than the target size."""
        size = self._size_before_turning(spec)
        if self._image.size != size:  # the call takes 5 % of the time to decode a small image
            self._image.draft(None, (2 * MNIST_WORKING_SIDE,) * 2 if spec.normalize == "mnist" else size)

    def _size_before_turning(self, spec: PixelSpec) -> tuple[int, int]:
        """(width, height) that the image is resized to, transposed if the orientation swaps the axes."""
        width, height = spec.width, spec.height
        if spec.resize == "pad":
            width, height = size_within(self.info.width, self.info.height, (width, height))
        return (width, height) if self.orientation < 5 else (height, width)


def is_image(data: bytes) -> bool:
    """Whether the first bytes are those of a supported format."""
    try:
        format_of(data)
    except ImageError:
        return False
    return True


def decode(data: bytes, spec: PixelSpec) -> NDArray[np.uint8]:
    """Decode an image to uint8 [spec.height, spec.width, spec.channels], read-only. Raises ImageError."""
    return EncodedImage(data).decode(spec)


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header."""
    image_class = format_class(name)
    try:
        if name == "AVIF":
            avif.check_tables(data)
        image = image_class(io.BytesIO(without_metadata(data, name)))
        if image.mode == "P" and image.palette is None:
            raise ValueError("it has no palette")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many("the image") from error
    except Exception as error:
        raise _corrupt(name, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many(f"{width}x{height}")
    return image


def _info(name: str, image: ImageFile.ImageFile, orientation: int) -> ImageInfo:
    width, height = image.size if orientation < 5 else image.size[::-1]
    return ImageInfo(name, width, height, 1 if image.mode in ("1", "L", "LA", "I;16") else 3)


def _flatten(image: Image.Image, *, gray: bool) -> Image.Image:
    """An image of any mode → `L`, or `RGB` if the image has colour and `gray` is False."""
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    if gray or image.mode in ("1", "L"):
        return image if image.mode == "L" else image.convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_many(image: str) -> ImageError:
    return ImageError("too_many_pixels", f"{image} has too many pixels: at most {MAX_PIXELS / 1e6:g} million are read")


def _corrupt(name: str, error: Exception) -> ImageError:
    return ImageError("corrupt_image", f"the {name} image is corrupt or truncated: {error}")
