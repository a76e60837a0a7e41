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

# Mode of a PIL image → the mode in which a file holds it. Of others, such as F, no range is agreed upon.
MODES = {mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")}
MODES |= {"CMYK": "RGB", "HSV": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "YCbCr": "RGB"}


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
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # Pillow's plugins raise of many kinds
            raise ImageError("corrupt_image", f"the image is corrupt or truncated: {error}") from error
        return _encode(upright)
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
    if image.mode not in MODES:
        raise InputError(f"a PIL image of mode {image.mode} is not read: convert it to L or RGB")
    image = image if MODES[image.mode] == image.mode else image.convert(MODES[image.mode])
    file = io.BytesIO()
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        image.save(file, "BMP")  # in a sixth of the time
    else:
        image.save(file, "PNG", compress_level=0)
    return file.getvalue()
