"""Registry of architectures: name → Keras model, uint8 [B,H,W,C] → float32 logits [B,K]."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from trainer.config import MAX_PARAMETERS, FitConfig
from trainer.errors import InputError, choose
from trainer.images.pixels import InputPreference
from trainer.models.applications import PREFIX, build_application
from trainer.models.architecture import Architecture, Shape
from trainer.models.branched_cnn import BRANCHED_CNN
from trainer.models.compact_resnet import COMPACT_RESNET, FROM_SCRATCH
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE2

if TYPE_CHECKING:
    import keras

__all__ = [
    "ARCHITECTURES",
    "AUTO",
    "Architecture",
    "build",
    "check_model_name",
    "choose_architecture",
    "default_architecture",
    "find_architecture",
]

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (BRANCHED_CNN, EFFICIENTNET_LITE0, EFFICIENTNET_LITE2, COMPACT_RESNET)
}
AUTO = "auto"
MAX_SMALL_SIDE = 32  # of images like MNIST's


def default_architecture(sizes: Collection[Shape], normalize: str) -> Architecture:
    """The architecture of `--model auto` for images of these native sizes (height, width, channels).

    `branched_cnn` grows with the image (132 million parameters at 64x64): small gray images of several sizes are
    decoded to MAX_SMALL_SIDE.
    """
    small = all(max(height, width) <= MAX_SMALL_SIDE and channels == 1 for height, width, channels in sizes)
    if small or normalize == "mnist":
        return dataclasses.replace(
            BRANCHED_CNN, input_preference=InputPreference(size=(MAX_SMALL_SIDE, MAX_SMALL_SIDE))
        )
    return EFFICIENTNET_LITE0


def choose_architecture(config: FitConfig, sizes: Collection[Shape], normalize: str) -> Architecture:
    """The architecture of `--model`: the named one, or for `auto` the default for images of these native sizes."""
    if config.model == AUTO:
        return default_architecture(sizes, normalize)
    return find_architecture(config.model, config.weights)


def check_model_name(name: str) -> None:
    """Raise InputError unless `name` is a value of `--model`."""
    if name != AUTO:
        find_architecture(name)


def find_architecture(name: str, weights: str = "auto") -> Architecture:
    """The architecture `name`, or `keras.applications:NAME`. Raises InputError for an unknown name.

    Only `build` checks whether NAME exists in Keras: that needs the import of TensorFlow.
    """
    if name.startswith(PREFIX):
        make = partial(build_application, name.removeprefix(PREFIX), weights=weights)
        return Architecture(name, make, FROM_SCRATCH, has_kernel_size=False)
    choose("--model", name, [AUTO, *ARCHITECTURES, f"{PREFIX}NAME"])
    architecture = ARCHITECTURES[name]
    if architecture.features and weights == "none":
        raise InputError(f"--weights none: {name} is always pretrained; --model compact_resnet trains from scratch")
    return architecture


def build(
    name: str, *, input_shape: Shape, classes: int, dropout: float, kernel_size: int, weights: str = "auto"
) -> keras.Model:
    """Build the model `name`: uint8 [B, *input_shape] → float32 logits [B, classes]; `weights` as in `--weights`.

    Raises InputError for an unknown name, an image too small for the network, or a network of more than
    `MAX_PARAMETERS` parameters.
    """
    architecture = find_architecture(name, weights)
    if architecture.count:
        # Counted without building: 2.88 billion parameters would fill the memory.
        _refuse_large(name, input_shape, architecture.count(input_shape, classes, kernel_size))
    try:
        model: keras.Model = architecture.build(input_shape, classes, dropout=dropout, kernel_size=kernel_size)
    except ValueError as error:
        height, width, channels = input_shape
        raise InputError(f"--model {name}: does not take {height}x{width}x{channels} images: {error}") from error
    _refuse_large(name, input_shape, model.count_params())
    return model


def _refuse_large(name: str, input_shape: Shape, parameters: int) -> None:
    if parameters > MAX_PARAMETERS:
        height, width, _ = input_shape
        raise InputError(
            f"--model {name}: {parameters:,} parameters for {height}x{width} images, at most "
            f"{MAX_PARAMETERS:,} are trained; choose a smaller --image-size, or --model compact_resnet, "
            "whose size does not grow with the image"
        )
