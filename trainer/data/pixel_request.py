"""What images are to be decoded to: from what is asked for, what the network wishes, and what the images are."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from trainer.data.cache.decoding import Size
from trainer.errors import InputError
from trainer.images.pixels import PixelSpec, PixelWish

MNIST_SIZE = (28, 28)


@dataclass(frozen=True)
class Request:
    """What an image is to be decoded to, as far as it is said."""

    image_size: tuple[int, int] | None = None  # (height, width)
    normalize: str = "none"
    pixels: PixelSpec | None = None  # all of it
    wish: Callable[[Set[Size]], PixelWish] = lambda sizes: PixelWish()

    def resolve(self, sizes: Set[Size]) -> PixelSpec:
        """The pixels for a source whose images have these native sizes. More sizes can only widen them.

        Where no size is asked for, that of the network's wish. One channel where every file is gray by its mode (a
        colour file with gray pixels is colour) and the network takes gray.
        """
        if self.pixels:
            return self.pixels
        if self.normalize == "mnist":
            if self.image_size not in (None, MNIST_SIZE):
                raise InputError(
                    "--image-size: --normalize mnist makes images of 28x28; leave the size out, or --normalize none"
                )
            return PixelSpec(*MNIST_SIZE, channels=1, normalize="mnist")
        wish = self.wish(sizes)
        channels = wish.channels or (1 if sizes and all(size[2] == 1 for size in sizes) else 3)
        if self.image_size:
            return PixelSpec(*self.image_size, channels)
        native = {size[:2] for size in sizes}
        height, width = wish.choose(native)
        return PixelSpec(height, width, channels)
