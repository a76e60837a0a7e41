"""Where in a picture the evidence for an answer lies: heat, float32 [H,W] from 0 to 1.

Two ways lead to it. A network that pools features has a class-activation map (Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016). Of any other it is asked what becomes of the answer when parts of the picture are
covered (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

GRID = 7  # covered places on each side
COVERS = GRID * GRID  # pictures that are asked about
# A cover is two of the GRID + 1 steps of a side: each place is covered by four of them, the rim by fewer.
COVER = 2
BLUR = 0.25  # of the longer side: the radius of what covers
LEAST = np.finfo(np.float32).tiny
STRENGTH = 0.7  # of the colour over the picture, where the heat is greatest
# From cold to hot: black, purple, red, orange, yellow, of even steps in brightness (matplotlib's inferno at quarters).
COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


def activation_heat(activation: NDArray[np.float32], index: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """From what each place [h,w,K] adds to the logits, the heat of class `index` for a picture of `shape` (H, W).

    What a place adds to all classes alike decides nothing: only what it adds to this one above their mean is heat.
    """
    places = activation[:, :, index] - activation.mean(2)
    height, width = shape
    spread = Image.fromarray(places.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return _normalised(np.asarray(spread))


def cover(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [H,W,C] COVERS times, each time with another place blurred beyond recognition: uint8 [COVERS,H,W,C].

    Blurred, not painted over: a patch of any colour would be something to see.
    """
    blurred = np.stack(
        [
            np.asarray(Image.fromarray(channel).filter(ImageFilter.GaussianBlur(BLUR * max(image.shape[:2]))))
            for channel in np.moveaxis(image, 2, 0)
        ],
        axis=2,
    )
    covered = np.repeat(image[None], COVERS, axis=0)
    for one, place in zip(covered, _places(*image.shape[:2]), strict=True):
        one[place] = blurred[place]
    return covered


def cover_heat(whole: float, covered: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """From a class's probability for the whole picture, and for it as `cover` gives it, [COVERS]: its heat.

    It is hot where the probability falls most once that place is covered; on average over the covers of a place.
    """
    fall = np.log(np.maximum(whole, LEAST)) - np.log(np.maximum(covered, LEAST))
    heat, times = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for one, place in zip(fall, _places(*shape), strict=True):
        heat[place] += one
        times[place] += 1
    return _normalised(heat / times)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture [H,W,C] in gray under the colours of its heat [H,W]: uint8 [H,W,3]."""
    gray = image.astype(np.float32).mean(2, keepdims=True)
    steps = np.linspace(0, 1, len(COLOURS))
    colour = np.stack([np.interp(heat, steps, COLOURS[:, channel]) for channel in range(3)], axis=2)
    share = STRENGTH * heat[:, :, None]
    return np.round((1 - share) * gray + share * colour).astype(np.uint8)


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    rows, columns = (np.linspace(0, length, GRID + COVER).round().astype(int) for length in (height, width))
    return [
        (slice(rows[row], rows[row + COVER]), slice(columns[column], columns[column + COVER]))
        for row in range(GRID)
        for column in range(GRID)
    ]


def _normalised(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nothing below zero, and the hottest place 1, where any is."""
    warm = np.maximum(heat, 0)
    return warm / warm.max() if warm.max() > 0 else warm
