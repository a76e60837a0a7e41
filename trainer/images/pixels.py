"""The array that a model takes, and what is said of an image that cannot become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from trainer.images.mnist import MNIST_SIDE

MIN_SIDE = 8


@dataclass(frozen=True)
class PixelSpec:
    """The array that a model takes: uint8 [height,width,channels]. Raises ValueError for an impossible one."""

    height: int
    width: int
    channels: int  # 1: gray, 3: RGB
    resize: str = "bilinear"
    normalize: str = "none"  # none | mnist

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in (1, 3):
            raise ValueError(f"pixels: {self.height}x{self.width}x{self.channels} is no HxWx1 or HxWx3")
        if self.resize != "bilinear":
            raise ValueError(f"pixels: resize {self.resize!r} is not bilinear")
        if self.normalize not in ("none", "mnist"):
            raise ValueError(f"pixels: normalize {self.normalize!r} is neither none nor mnist")
        if self.normalize == "mnist" and (self.height, self.width, self.channels) != (MNIST_SIDE, MNIST_SIDE, 1):
            raise ValueError(f"pixels: normalize mnist gives 28x28x1, not {self.height}x{self.width}x{self.channels}")

    @property
    def shape_name(self) -> str:
        """As people write it: 28x28x1."""
        return f"{self.height}x{self.width}x{self.channels}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelSpec:
        return cls(**values)


@dataclass(frozen=True)
class PixelWish:
    """What a network asks of its pictures where nothing else is said."""

    size: tuple[int, int] = (64, 64)  # (height, width)
    native: bool = True  # rather the pictures' own size, where all share one of MIN_SIDE to `size`
    channels: int | None = None  # None: 1 where all pictures are gray, else 3

    def choose(self, native: Set[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) for pictures of these sizes."""
        if self.native and len(native) == 1:
            (only,) = native
            if all(MIN_SIDE <= side <= most for side, most in zip(only, self.size, strict=True)):
                return only
        return self.size
