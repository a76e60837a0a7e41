"""Pixel spec of a data set: from the options, the network's preference, and the native sizes of the images."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from trainer.data.cache.decoding import Size
from trainer.errors import InputError
from trainer.images.pixels import InputPreference, PixelSpec

MNIST_SIZE = (28, 28)


@dataclass(frozen=True)
class PixelRequest:
    """Requirements on the decoded images; whatever is not given follows from the images."""

    image_size: tuple[int, int] | None = None  # (height, width)
    resize: str = "stretch"
    normalize: str = "none"
    pixels: PixelSpec | None = None  # all of it, for an existing model
    input_preference: Callable[[Set[Size]], InputPreference] = lambda sizes: InputPreference()

    def resolve(self, sizes: Set[Size], bits: int = 0) -> PixelSpec:
        """Pixel spec for a source whose images have these native sizes. More sizes, or more bits, can only widen it.

        Without `image_size` the network's preference decides. One channel if every file is gray by its mode (a colour
        file with gray pixels is colour) and the network takes gray. `bits`: the most that a 16-bit gray image uses, 0
        without any.
        """
        if self.pixels:
            return self.pixels
        if self.normalize == "mnist":
            if self.image_size not in (None, MNIST_SIZE):
                raise InputError(
                    "--image-size: --normalize mnist makes images of 28x28; leave the size out, or --normalize none"
                )
            if self.resize == "pad":
                raise InputError(
                    "--resize pad: --normalize mnist, the default of tfds:mnist, crops and centres the digit itself; "
                    "leave one out, or --normalize none"
                )
            return PixelSpec(*MNIST_SIZE, channels=1, normalize="mnist", bits=bits or 16)
        preference = self.input_preference(sizes)
        channels = preference.channels or (1 if sizes and all(size[2] == 1 for size in sizes) else 3)
        height, width = self.image_size or preference.choose_size({size[:2] for size in sizes})
        return PixelSpec(height, width, channels, self.resize, bits=bits or 16)
