"""Augmentation: small random changes to training images that do not change their class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.config import choose

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.data.dataset import Dataset


@dataclass(frozen=True)
class Ranges:
    """Each drawn evenly from -x to x, for each image anew."""

    shift: float  # of height and width
    rotation_deg: float
    zoom: float  # of the scale
    brightness: float  # of the range 0..255; colour images only
    contrast: float  # of the distance from mid-gray; colour images only


STRENGTHS = {
    "light": Ranges(shift=0.08, rotation_deg=10, zoom=0.08, brightness=0.1, contrast=0.1),
    "strong": Ranges(shift=0.15, rotation_deg=20, zoom=0.2, brightness=0.25, contrast=0.25),
}


@dataclass(frozen=True)
class Augment:
    """uint8 [B,H,W,C] and a seed int64 [2] → float32 [B,H,W,C] in 0..255.

    `flips` mirrors half of the images left to right; `colour` changes brightness and contrast. Shift, rotation and
    zoom are one resampling, so that an image is blurred once.
    """

    strength: str
    flips: bool
    colour: bool

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        ranges = STRENGTHS[self.strength]
        shape = tf.shape(images)
        count = shape[0]
        height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
        draws = tf.random.stateless_uniform([7, count], seed, -1.0, 1.0)
        angle = draws[0] * (ranges.rotation_deg * math.pi / 180)
        scale = 1.0 / (1.0 + draws[1] * ranges.zoom)
        mirror = tf.sign(draws[4]) if self.flips else tf.ones([count])
        # Output (x, y) → input (a x + b y + c, d x + e y + f), about the centre.
        a, b = tf.cos(angle) * scale * mirror, -tf.sin(angle) * scale
        d, e = tf.sin(angle) * scale * mirror, tf.cos(angle) * scale
        cx, cy = (width - 1) / 2, (height - 1) / 2
        c = cx - a * cx - b * cy + draws[2] * (ranges.shift * width)
        f = cy - d * cx - e * cy + draws[3] * (ranges.shift * height)
        zeros = tf.zeros([count])
        transformed = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=tf.stack([a, b, c, d, e, f, zeros, zeros], axis=1),
            output_shape=shape[1:3],
            interpolation="BILINEAR",
            fill_mode="NEAREST",  # a digit's border is black, and a photograph's goes on
            fill_value=0.0,
        )
        transformed.set_shape(images.shape)
        if self.colour:
            brightness = draws[5][:, None, None, None] * (255 * ranges.brightness)
            contrast = 1.0 + draws[6][:, None, None, None] * ranges.contrast
            transformed = tf.clip_by_value((transformed - 127.5) * contrast + 127.5 + brightness, 0.0, 255.0)
        return transformed


def augment_for(dataset: Dataset, choice: str) -> Augment | None:
    """What `--augment` asks for: `auto` is light; digits and letters are not mirrored; gray keeps its tones."""
    choose("--augment", choice, ("auto", "none", "light", "strong"))
    if choice == "none":
        return None
    return Augment(
        strength=dataset.default_augment if choice == "auto" else choice,
        flips=not dataset.digits,
        colour=dataset.pixels.channels == 3,
    )
