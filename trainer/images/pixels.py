"""The array that a model takes as input, and the size that a network prefers."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from trainer.images.mnist import MNIST_SIDE

MIN_SIDE = 8
RESIZES = ("stretch", "pad")
STRETCH_IN_FILES = "bilinear"  # earlier versions, which have no other rule, write and read this name
DEPTHS = (8, 10, 12, 14, 16)  # bits that the values in a 16-bit file may have: detectors deliver them


@dataclass(frozen=True)
class PixelSpec:
    """Input array of a model: uint8 [height,width,channels]. Raises ValueError for an impossible one."""

    height: int
    width: int
    channels: int  # 1: gray, 3: RGB
    resize: str = "stretch"  # one of RESIZES
    normalize: str = "none"  # none | mnist
    bits: int = 16  # of the values in 16-bit gray files, one of DEPTHS

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in (1, 3):
            raise ValueError(f"pixels: {self.height}x{self.width}x{self.channels} is no HxWx1 or HxWx3")
        if self.resize not in RESIZES:
            raise ValueError(f"pixels: resize {self.resize!r} is neither stretch nor pad")
        if self.normalize not in ("none", "mnist"):
            raise ValueError(f"pixels: normalize {self.normalize!r} is neither none nor mnist")
        if self.bits not in DEPTHS:
            raise ValueError(f"pixels: {self.bits} bits are none of {', '.join(map(str, DEPTHS))}")
        if self.normalize == "mnist" and (self.height, self.width, self.channels) != (MNIST_SIDE, MNIST_SIDE, 1):
            raise ValueError(f"pixels: normalize mnist gives 28x28x1, not {self.height}x{self.width}x{self.channels}")
        if self.normalize == "mnist" and self.resize == "pad":
            raise ValueError("pixels: normalize mnist places the digit itself; resize pad is not expected")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels

    @property
    def shape_name(self) -> str:
        """The shape as text, such as 28x28x1."""
        return f"{self.height}x{self.width}x{self.channels}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `bits` only if they are not 16, so that earlier versions read all other models."""
        values = dataclasses.asdict(self)
        if self.resize == "stretch":
            values["resize"] = STRETCH_IN_FILES
        return values if self.bits != 16 else {key: value for key, value in values.items() if key != "bits"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelSpec:
        if values.get("resize") == STRETCH_IN_FILES:
            values = values | {"resize": "stretch"}
        return cls(**values)


@dataclass(frozen=True)
class InputPreference:
    """Input size and channels that a network prefers where the user gives none."""

    size: tuple[int, int] = (64, 64)  # (height, width)
    native: bool = True  # prefer the native size, if all images share one between MIN_SIDE and `size`
    channels: int | None = None  # None: 1 if all images are gray, else 3

    def choose_size(self, native: Set[tuple[int, int]]) -> tuple[int, int]:
        """Input size (height, width) for images of these native sizes."""
        if self.native and len(native) == 1:
            (only,) = native
            if all(MIN_SIDE <= side <= limit for side, limit in zip(only, self.size, strict=True)):
                return only
        return self.size
