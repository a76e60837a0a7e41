"""Augmentation: small random changes to training images that do not change their class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.errors import choose

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.data.dataset import Dataset


@dataclass(frozen=True)
class Ranges:
    """Largest change x of each kind; each image draws its own change, uniform over -x to x."""

    shift: float  # share of height and width
    rotation_deg: float
    zoom: float  # of the scale
    brightness: float  # of the range 0..255; colour images only
    contrast: float  # of the distance from mid-gray; colour images only


STRENGTHS = {
    "none": Ranges(shift=0, rotation_deg=0, zoom=0, brightness=0, contrast=0),  # mirrored only
    "light": Ranges(shift=0.08, rotation_deg=10, zoom=0.08, brightness=0.1, contrast=0.1),
    "strong": Ranges(shift=0.15, rotation_deg=20, zoom=0.2, brightness=0.25, contrast=0.25),
}

DRAWS = 7  # random numbers per image


@dataclass(frozen=True)
class Augment:
    """Random augmentation, a pure function of the images and random numbers.

    Images uint8 [B,H,W,C] and `draws` float32 [B,DRAWS], uniform over -1..1 → uint8 [B,H,W,C]. `flips` mirrors half of
    the images left to right; `colour` changes brightness and contrast. Shift, rotation, zoom and mirroring are one
    resampling, so that an image is blurred only once.
    """

    strength: str
    flips: bool
    colour: bool

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        ranges = STRENGTHS[self.strength]
        rotation, zoom, shift_x, shift_y, flip, brightness, contrast = tf.unstack(draws, axis=1)
        height, width = images.shape[1:3]
        angle = rotation * (ranges.rotation_deg * math.pi / 180)
        scale = 1.0 / (1.0 + zoom * ranges.zoom)
        mirror = tf.where(flip < 0, -1.0, 1.0) if self.flips else tf.ones_like(flip)
        # Output (x, y) → input (a x + b y + c, d x + e y + f), about the centre.
        a, b = tf.cos(angle) * scale * mirror, -tf.sin(angle) * scale
        d, e = tf.sin(angle) * scale * mirror, tf.cos(angle) * scale
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        c = centre_x - a * centre_x - b * centre_y + shift_x * (ranges.shift * width)
        f = centre_y - d * centre_x - e * centre_y + shift_y * (ranges.shift * height)
        zeros = tf.zeros_like(a)
        values = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=tf.stack([a, b, c, d, e, f, zeros, zeros], axis=1),
            output_shape=[height, width],
            interpolation="BILINEAR",
            fill_mode="NEAREST",  # continues the edge: black beside a digit, background beside a photo
            fill_value=0.0,
        )
        if self.colour:
            offset = brightness[:, None, None, None] * (255 * ranges.brightness)
            gain = 1.0 + contrast[:, None, None, None] * ranges.contrast
            values = (values - 127.5) * gain + 127.5 + offset
        return tf.saturate_cast(tf.round(values), tf.uint8)


def augment_for(dataset: Dataset, choice: str, flip: str, *, default: str, flips: bool) -> Augment | None:
    """Augmentation for `--augment choice` and `--flip flip`; `auto` is the `default`, and mirrors images if `flips`.

    `none` mirrors images if `--flip on` asks for it. Brightness and contrast of gray images do not change.
    """
    choose("--augment", choice, ("auto", "none", "light", "strong"))
    if choice == "none" and flip != "on":
        return None
    return Augment(
        strength=default if choice == "auto" else choice,
        flips=flips,
        colour=dataset.pixels.channels == 3 and choice != "none",
    )
