"""Any backbone of `keras.applications` by name, from scratch or with the ImageNet weights that Keras downloads."""

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
    """Build `keras.applications.NAME`: uint8 [B,H,W,C] → float32 logits [B,classes].

    `kernel_size` is ignored: the backbone has its own. `weights` imagenet: Keras downloads them unless they are in its
    cache. Raises InputError for an unknown name or a failed download, ValueError if the backbone refuses the image
    size.
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
        x = _preprocess(function, images)
        backbone = _download(name, lambda: function(**arguments | {"weights": "imagenet"}))
    else:
        if "include_preprocessing" in inspect.signature(function).parameters:
            arguments["include_preprocessing"] = False  # the Rescaling below is the same for every backbone
        x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
        backbone = function(**arguments)
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(x))
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, dtype="float32", name="output")(x)
    return keras.Model(images, logits, name=name.lower())


def _preprocess(function: Callable[..., Any], images: Any) -> Any:
    """Scale pixels as in the backbone's training: each family of backbones has its own scale."""
    from keras import layers

    values = layers.Rescaling(1.0, name="to_float")(images)
    return sys.modules[function.__module__].preprocess_input(values)


def _download(name: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except ValueError:
        raise
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise InputError(
            f"--weights imagenet: the weights of {name} cannot be downloaded: {error}; download them once where there "
            "is network and copy ~/.keras/models here, or train from scratch with --weights none"
        ) from error
