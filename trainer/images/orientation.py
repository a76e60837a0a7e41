"""EXIF orientation: how the stored pixels are turned to stand upright."""

from __future__ import annotations

from PIL import Image

EXIF_ORIENTATION = 0x0112
# EXIF orientation → the transposition that turns the stored image upright; from 5 on, it swaps the axes.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, from the metadata before the pixels; 1 if EXIF is missing or damaged."""
    if "exif" not in image.info:
        return 1
    exif = Image.Exif()  # image.getexif() would read XMP, too
    try:
        exif.load(image.info["exif"])
        orientation = exif.get(EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in UPRIGHT else 1
