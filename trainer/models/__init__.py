"""The registry of architectures: a name → a Keras model, uint8 [B,H,W,C] → float32 logits [B,K]."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from trainer.config import MAX_PARAMETERS, FitConfig
from trainer.errors import InputError, choose
from trainer.images.pixels import PixelWish
from trainer.models.applications import PREFIX, build_application
from trainer.models.architecture import Architecture, Shape
from trainer.models.branched_cnn import BRANCHED_CNN
from trainer.models.compact_resnet import COMPACT_RESNET, FROM_SCRATCH
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0

if TYPE_CHECKING:
    import keras

__all__ = ["ARCHITECTURES", "AUTO", "Architecture", "build", "check_name", "choose_architecture", "find", "suggest"]

ARCHITECTURES = {one.name: one for one in (BRANCHED_CNN, EFFICIENTNET_LITE0, COMPACT_RESNET)}
AUTO = "auto"
SMALL_SIDE = 32  # of pictures like MNIST's


def suggest(sizes: Collection[Shape], normalize: str) -> Architecture:
    """The architecture for pictures of these native sizes (height, width, channels).

    The weights of `branched_cnn` grow with the picture (132 million at 64x64): small gray ones of several sizes are
    decoded to SMALL_SIDE.
    """
    small = all(max(height, width) <= SMALL_SIDE and channels == 1 for height, width, channels in sizes)
    if small or normalize == "mnist":
        return dataclasses.replace(BRANCHED_CNN, wish=PixelWish(size=(SMALL_SIDE, SMALL_SIDE)))
    return EFFICIENTNET_LITE0


def choose_architecture(config: FitConfig, sizes: Collection[Shape], normalize: str) -> Architecture:
    """The architecture that `--model` names, or that `auto` chooses for pictures of these native sizes."""
    if config.model == AUTO:
        return suggest(sizes, normalize)
    return find(config.model, config.weights)


def check_name(name: str) -> None:
    """Raise InputError unless `name` is one that `--model` takes."""
    if name != AUTO:
        find(name)


def find(name: str, weights: str = "auto") -> Architecture:
    """The registered architecture `name`, or that of a `keras.applications:NAME`. Raises InputError for another name.

    Whether the NAME exists is found out by `build`, which has to import TensorFlow anyway.
    """
    if name.startswith(PREFIX):
        return Architecture(name, partial(build_application, name.removeprefix(PREFIX), weights=weights), FROM_SCRATCH)
    if name == EFFICIENTNET_LITE0.name and weights == "none":
        raise InputError(f"--weights none: {name} is there for its weights; --model compact_resnet trains from scratch")
    choose("--model", name, [AUTO, *ARCHITECTURES, f"{PREFIX}NAME"])
    return ARCHITECTURES[name]


def build(
    name: str, *, input_shape: Shape, classes: int, dropout: float, kernel_size: int, weights: str = "auto"
) -> keras.Model:
    """Build the model `name`: uint8 [B, *input_shape] → float32 logits [B, classes]; `weights` as the option has it.

    Raises InputError for an unknown name, a picture that is too small for the network, or a network of more
    than `MAX_PARAMETERS` parameters.
    """
    architecture = find(name, weights)
    if architecture.count:
        # Counted on paper: building 2.88 billion parameters to refuse them would fill the memory.
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
            "whose size does not grow with the picture"
        )
