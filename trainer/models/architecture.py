"""Architectures: facts of a network that are needed before it is built and before images are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.config import Recipe
from trainer.images.pixels import InputPreference

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Architecture:
    """An architecture: uint8 [B,H,W,C] → float32 logits [B,K]."""

    name: str  # as in `--model`
    # (input shape, classes, dropout=…, kernel_size=…) → a Keras model. Rescaling is part of the model, so that the
    # exported network takes uint8 pixels. Raises ValueError for an input shape that it does not support.
    build: Callable[..., Any]
    recipe: Recipe
    input_preference: InputPreference = InputPreference()
    has_kernel_size: bool = True  # whether `--kernel-size` applies
    # Whether bfloat16 is faster on a CPU that has it. Depthwise convolutions are slower: efficientnet_lite0 at 160
    # pixels trains on 36 images/s in bfloat16 and 61 in float32 (two cores with AVX512-BF16).
    bfloat16_on_cpu: bool = True
    # For a pretrained network: the layer of the features, float32 [B,F], and the sha256 of its weights.
    features: str | None = None
    weights_id: str = ""
    # (input shape, classes, kernel size) → number of parameters, for a network that may be too large to build.
    count: Callable[[Shape, int, int], int] | None = None
