"""Pixel spec of a data set: from the options, the network's preference, and the native sizes of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Set
from dataclasses import dataclass

from trainer.data.cache.decoding import NativeFacts, Size
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

    def resolve(self, native: NativeFacts) -> PixelSpec:
        """Pixel spec for a source with such images. More sizes, or more bits, can only widen it.

        Without `image_size` the network's preference decides. One channel if every file is gray by its mode (a colour
        file with gray pixels is colour) and the network takes gray.
        """
        sizes, bits = native.sizes, native.bits
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


def stored_spec(pixels: PixelSpec, native: NativeFacts) -> PixelSpec:
    """Pixel spec in which the cache keeps images for `pixels`: in their native size, where they are only enlarged.

    `enlarge` makes the same bytes of them as decoding to `pixels` does: enlarging is the last step of the decoder, but
    for turning and normalizing. 60,000 images of 32×32 for a network of 160×160 take 0.2 GB so, and not 4.6.
    """
    if pixels.normalize != "none" or native.turned or len({size[:2] for size in native.sizes}) != 1:
        return pixels
    height, width, _ = next(iter(native.sizes))
    if height > pixels.height or width > pixels.width:
        return pixels
    return dataclasses.replace(pixels, height=height, width=width, resize="stretch")
