"""What is known of a network before it is built, and before pictures are decoded for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.config import Recipe
from trainer.images.pixels import PixelWish

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Architecture:
    """A kind of network: uint8 [B,H,W,C] → float32 logits [B,K]."""

    name: str  # as `--model` has it
    # (input shape, classes, dropout=…, kernel_size=…) → a Keras model. Rescaling is part of it, so that what is
    # exported takes the pixels as they are. Raises ValueError for a picture that it does not take.
    build: Callable[..., Any]
    recipe: Recipe
    wish: PixelWish = PixelWish()
    # Whether a CPU that computes in bfloat16 gains by it. Depthwise convolutions lose: a training step of
    # efficientnet_lite0 at 160 pixels runs 36 images/s, and 61 in float32 (two cores with AVX512-BF16).
    bfloat16_on_cpu: bool = True
    # Of a pretrained network: the layer that gives a picture's features, float32 [B,F], and what names its weights.
    features: str | None = None
    weights_id: str = ""
    # (input shape, classes, kernel size) → parameters, for a network that may be too large to be built just to count.
    count: Callable[[Shape, int, int], int] | None = None
