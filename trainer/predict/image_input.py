"""Images in the forms that Python has them in → encoded bytes, which the one decoder reads."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainer.errors import ImageError, InputError

# A path; the bytes of an image file; a PIL image; or uint8 [H,W], [H,W,1], [H,W,3] (RGB) or [H,W,4] (RGBA).
ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

AS_BMP = ("L", "RGB")  # modes that BMP holds as they are, six times as fast as PNG
AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
OF_UNKNOWN_RANGE = ("F", "I")


def encoded(image: ImageInput) -> bytes:
    """The bytes of an image file: those of a path, or a lossless file of the pixels of a PIL image or an array.

    Raises InputError for a file that cannot be read and for an array of another type or shape, ImageError for a PIL
    image that cannot be loaded.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if isinstance(image, np.ndarray):
        return _encode(_of_array(image))
    if isinstance(image, Image.Image):
        try:
            # Image.open leaves a telephone's photo lying on its side, and says so in its EXIF.
            return _encode(ImageOps.exif_transpose(image))
        except OSError as error:
            raise ImageError("corrupt_image", f"the image is corrupt or truncated: {error}") from error
    raise InputError(f"an image is a path, bytes, a PIL image or an array, not {type(image).__name__}")


def described(image: ImageInput) -> str:
    """The beginning of a message about an image: its path, if it has one."""
    return f"{os.fspath(image)}: " if isinstance(image, str | os.PathLike) else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _of_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        # 0..1, 0..255 and standardized floats look alike, and a wrong guess gives a wrong answer without a word.
        raise InputError(f"an array of {array.dtype} is no image: uint8 from 0 to 255 is expected")
    gray = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if not (array.size and (gray.ndim == 2 or (gray.ndim == 3 and gray.shape[2] in (3, 4)))):
        raise InputError(f"an array of the shape {array.shape} is no image: [H,W], [H,W,3] or [H,W,4] is expected")
    return Image.fromarray(gray)


def _encode(image: Image.Image) -> bytes:
    if image.mode in OF_UNKNOWN_RANGE:
        raise InputError(f"a PIL image of mode {image.mode} has no known range: convert it to L or RGB first")
    if image.mode not in AS_PNG:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    file = io.BytesIO()
    as_bmp = image.mode in AS_BMP and not image.has_transparency_data
    image.save(file, "BMP" if as_bmp else "PNG", **({} if as_bmp else {"compress_level": 0}))
    return file.getvalue()
