"""The registry of architectures: a name → a Keras model, uint8 [B,H,W,C] → float32 logits [B,K]."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from trainer.config import MAX_PARAMETERS, InputError, choose
from trainer.models.applications import PREFIX, build_application
from trainer.models.architecture import Architecture, Shape
from trainer.models.branched_cnn import BRANCHED_CNN
from trainer.models.compact_resnet import COMPACT_RESNET

if TYPE_CHECKING:
    import keras

ARCHITECTURES = {one.name: one for one in (BRANCHED_CNN, COMPACT_RESNET)}
SMALL_SIDE = 32  # of pictures like MNIST's


def suggest(sizes: Collection[Shape], normalize: str) -> Architecture:
    """The architecture for pictures of these native sizes (height, width, channels).

    The weights of `branched_cnn` grow with the picture: 132 million at 64x64, to which it takes small pictures of
    more than one size.
    """
    decoded = BRANCHED_CNN.wish.choose({(height, width) for height, width, _ in sizes})
    small = max(decoded) <= SMALL_SIDE and all(channels == 1 for _, _, channels in sizes)
    return BRANCHED_CNN if small or normalize == "mnist" else COMPACT_RESNET


def find(name: str) -> Architecture:
    """The registered architecture `name`, or that of a `keras.applications:NAME`. Raises InputError for another name.

    Whether the NAME exists is found out by `build`, which has to import TensorFlow anyway.
    """
    if name.startswith(PREFIX):
        return Architecture(name, partial(build_application, name.removeprefix(PREFIX)))
    choose("--model", name, [*ARCHITECTURES, f"{PREFIX}NAME"])
    return ARCHITECTURES[name]


def build(name: str, *, input_shape: Shape, classes: int, dropout: float, kernel_size: int) -> keras.Model:
    """Build the model `name`: uint8 [B, *input_shape] → float32 logits [B, classes].

    Raises InputError for an unknown name, a picture that is too small for the network, or a network of more
    than `MAX_PARAMETERS` parameters.
    """
    architecture = find(name)
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
