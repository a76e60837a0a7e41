"""The registry of architectures: a name → a Keras model, uint8 [B,H,W,C] → float32 logits [B,K].

Rescaling is part of every model, so that what is exported takes the pixels as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.config import MAX_PARAMETERS, FitConfig, InputError, choose
from trainer.images.pixels import PixelSpec
from trainer.models.applications import PREFIX, build_application
from trainer.models.branched_cnn import build_branched_cnn, count_branched_cnn
from trainer.models.compact_resnet import build_compact_resnet

if TYPE_CHECKING:
    import keras

Builder = Callable[..., Any]

BUILDERS: dict[str, Builder] = {
    "branched_cnn": build_branched_cnn,
    "compact_resnet": build_compact_resnet,
}


def suggest(pixels: PixelSpec) -> str:
    """The architecture for pictures of this size. The default's weights grow with it: 132 million at 64x64."""
    digits = pixels.channels == 1 and max(pixels.height, pixels.width) <= 32
    return FitConfig.model if digits else "compact_resnet"


def check_name(name: str) -> None:
    """Raise InputError unless `name` is a registered architecture or a `keras.applications:NAME`.

    Whether the NAME exists is found out by `build`, which has to import TensorFlow anyway.
    """
    if not name.startswith(PREFIX):
        choose("--model", name, [*BUILDERS, f"{PREFIX}NAME"])


def build(
    name: str, *, input_shape: tuple[int, int, int], classes: int, dropout: float, kernel_size: int
) -> keras.Model:
    """Build the model `name`: uint8 [B, *input_shape] → float32 logits [B, classes].

    Raises InputError for an unknown name, a picture that is too small for the network, or a network of more
    than `MAX_PARAMETERS` parameters.
    """
    check_name(name)
    if name == "branched_cnn":
        # Counted on paper: building 2.88 billion parameters to refuse them would fill the memory.
        _refuse_large(name, input_shape, count_branched_cnn(input_shape, classes, kernel_size))
    try:
        if name.startswith(PREFIX):
            model = build_application(name.removeprefix(PREFIX), input_shape, classes, dropout)
        else:
            model = BUILDERS[name](input_shape, classes, dropout=dropout, kernel_size=kernel_size)
    except ValueError as error:
        height, width, channels = input_shape
        raise InputError(f"--model {name}: does not take {height}x{width}x{channels} images: {error}") from error
    _refuse_large(name, input_shape, model.count_params())
    return model


def _refuse_large(name: str, input_shape: tuple[int, int, int], parameters: int) -> None:
    if parameters > MAX_PARAMETERS:
        height, width, _ = input_shape
        raise InputError(
            f"--model {name}: {parameters:,} parameters for {height}x{width} images, at most "
            f"{MAX_PARAMETERS:,} are trained; choose a smaller --image-size, or --model compact_resnet, "
            "whose size does not grow with the picture"
        )
