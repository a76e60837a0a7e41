"""Any backbone of `keras.applications` by name, trained from scratch: no weights are fetched."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from trainer.config import choose

if TYPE_CHECKING:
    import keras

PREFIX = "keras.applications:"


def build_application(
    name: str, input_shape: tuple[int, int, int], classes: int, *, dropout: float, kernel_size: int
) -> keras.Model:
    """uint8 [B,H,W,C] → float32 logits [B,classes]; `name` as in `keras.applications.NAME`.

    `kernel_size` is the backbone's own, whatever is asked for.

    Raises InputError for an unknown name, ValueError where the backbone refuses the picture's size.
    """
    del kernel_size
    import keras
    from keras import layers

    backbones = {key: value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    choose("--model keras.applications", name, backbones)
    function = backbones[name]
    arguments = {"include_top": False, "weights": None, "input_shape": input_shape, "pooling": "avg"}
    if "include_preprocessing" in inspect.signature(function).parameters:
        arguments["include_preprocessing"] = False  # ours is below, the same for every backbone
    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
    x = function(**arguments)(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, dtype="float32", name="output")(x)
    return keras.Model(images, logits, name=name.lower())
