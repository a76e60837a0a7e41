"""Any backbone of `keras.applications` by name, trained from scratch: no weights are fetched."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.errors import InputError, choose

if TYPE_CHECKING:
    import keras

PREFIX = "keras.applications:"


def build_application(
    name: str, input_shape: tuple[int, int, int], classes: int, *, dropout: float, kernel_size: int, weights: str
) -> keras.Model:
    """uint8 [B,H,W,C] → float32 logits [B,classes]; `name` as in `keras.applications.NAME`.

    `kernel_size` is the backbone's own, whatever is asked for. `weights` imagenet: Keras fetches them, unless they lie
    in its cache. Raises InputError for an unknown name or weights that cannot be fetched, ValueError where the backbone
    refuses the picture's size.
    """
    del kernel_size
    import keras
    from keras import layers

    backbones = {key: value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    choose("--model keras.applications", name, backbones)
    function = backbones[name]
    images = keras.Input(input_shape, dtype="uint8", name="images")
    arguments = {"include_top": False, "weights": None, "input_shape": input_shape}
    if weights == "imagenet":
        x = _preprocessed(function, images)
        backbone = _fetch(name, lambda: function(**arguments | {"weights": "imagenet"}))
    else:
        if "include_preprocessing" in inspect.signature(function).parameters:
            arguments["include_preprocessing"] = False  # ours is below, the same for every backbone
        x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
        backbone = function(**arguments)
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(x))
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, dtype="float32", name="output")(x)
    return keras.Model(images, logits, name=name.lower())


def _preprocessed(function: Callable[..., Any], images: Any) -> Any:
    """What the backbone was trained on: each family of them has a scale of its own."""
    from keras import layers

    values = layers.Rescaling(1.0, name="to_float")(images)
    return sys.modules[function.__module__].preprocess_input(values)


def _fetch(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ValueError:
        raise
    except Exception as error:  # Keras raises nothing more special where a download fails
        raise InputError(
            f"--weights imagenet: the weights of {name} cannot be fetched: {error}; fetch them once where there is "
            "network and copy ~/.keras/models here, or train from scratch with --weights none"
        ) from error
