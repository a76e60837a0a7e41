"""EfficientNet-Lite0 and Lite2 with weights from ImageNet: 4,652,008 and 6,092,072 parameters with its 1,000 classes.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in Google's variant for
small devices (2020): no squeeze-and-excitation, ReLU6 instead of swish. Stem, head, and the repeats of the first and
the last stage are the same in all variants; the rest is scaled by the width and depth of the variant.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.config import Recipe
from trainer.images.pixels import InputPreference
from trainer.models.architecture import Architecture, Shape
from trainer.models.lite_weights import LITE0_WEIGHTS, LITE2_WEIGHTS, WeightsFile, read_weights

if TYPE_CHECKING:
    import keras

STEM, HEAD = 32, 1280  # filters
FILTER_MULTIPLE = 8
EPSILON = 1e-3  # of batch normalization
FEATURES = "features"  # the layer of the features [B,1280]
OUTPUT = "output"  # the classification layer


class Stage(NamedTuple):
    """Consecutive blocks of one kind; only the first has the stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    filters: int


STAGES = (  # of width and depth 1
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Variant(NamedTuple):
    """A network of the family."""

    name: str
    width: float  # times the filters of each stage
    depth: float  # times its repeats
    weights: WeightsFile

    def stages(self) -> Iterator[Stage]:
        """The stages, scaled."""
        for stage in STAGES:
            repeats = stage.repeats if stage in (STAGES[0], STAGES[-1]) else math.ceil(self.depth * stage.repeats)
            yield stage._replace(repeats=repeats, filters=_scaled_filters(stage.filters, self.width))


LITE0 = Variant("efficientnet_lite0", width=1.0, depth=1.0, weights=LITE0_WEIGHTS)
LITE2 = Variant("efficientnet_lite2", width=1.1, depth=1.2, weights=LITE2_WEIGHTS)


def _scaled_filters(filters: int, width: float) -> int:
    """The nearest multiple of FILTER_MULTIPLE, but not below 90 % of what is asked for."""
    wanted = width * filters
    nearest = int(wanted + FILTER_MULTIPLE / 2) // FILTER_MULTIPLE * FILTER_MULTIPLE
    return nearest if nearest >= 0.9 * wanted else nearest + FILTER_MULTIPLE


def build_efficientnet_lite(
    variant: Variant,
    input_shape: Shape,
    classes: int,
    *,
    dropout: float,
    kernel_size: int,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> keras.Model:
    """Build the network with ImageNet weights: uint8 [B,H,W,3] → float32 logits [B,classes].

    `weights` are those that `read_weights` returns for the variant, the default. `kernel_size` is ignored: the network
    has its own. Raises InputError if the weights cannot be read, ValueError for gray images.
    """
    del kernel_size
    import keras
    from keras import layers

    if input_shape[2] != 3:
        raise ValueError("three channels are expected")
    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(images)
    x = _normalize(_conv(STEM, 3, 2, "stem")(x), "stem")
    for name, stage, stride in _blocks(variant):
        x = _block(x, name, stage, stride)
    x = _normalize(_conv(HEAD, 1, 1, "head")(x), "head")
    x = layers.GlobalAveragePooling2D(name=FEATURES, dtype="float32")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, dtype="float32", name=OUTPUT)(x)
    model = keras.Model(images, logits, name=variant.name)
    _set_backbone(model, variant, weights or read_weights(variant.weights))
    for layer in model.layers:
        # The statistics of ImageNet are better than those of a few hundred images; and a step is 25 % faster.
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return model


def _blocks(variant: Variant) -> Iterator[tuple[str, Stage, int]]:
    """Name, stage and stride of each block."""
    number = 0
    for stage in variant.stages():
        for index in range(stage.repeats):
            yield f"block{number}", stage, stage.stride if index == 0 else 1
            number += 1


def _block(x: Any, name: str, stage: Stage, stride: int) -> Any:
    """An inverted residual block (Sandler et al., MobileNetV2, 2018)."""
    from keras import layers

    y = x
    if stage.expansion > 1:
        y = _normalize(_conv(x.shape[-1] * stage.expansion, 1, 1, f"{name}_expand")(y), f"{name}_expand")
    y = layers.DepthwiseConv2D(stage.kernel_size, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(y)
    y = _normalize(y, f"{name}_depthwise")
    y = _conv(stage.filters, 1, 1, f"{name}_project")(y)
    y = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_project_norm")(y)
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and x.shape[-1] == stage.filters else y


def _conv(filters: int, kernel_size: int, stride: int, name: str) -> Any:
    from keras import layers

    return layers.Conv2D(filters, kernel_size, stride, padding="same", use_bias=False, name=name)


def _normalize(x: Any, name: str) -> Any:
    from keras import layers

    return layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x))


def _set_backbone(model: keras.Model, variant: Variant, weights: Mapping[str, NDArray[Any]]) -> None:
    """Set the ImageNet weights of every layer except the last."""

    def conv(layer: str, name: str) -> None:
        # [out, in, height, width] → [height, width, in, out]; for a depthwise layer, whose `in` is 1, `out` is third.
        order = (2, 3, 0, 1) if layer.endswith("depthwise") else (2, 3, 1, 0)
        model.get_layer(layer).set_weights([weights[f"{name}.weight"].transpose(order)])

    def norm(layer: str, name: str) -> None:
        keys = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(f"{layer}_norm").set_weights([weights[f"{name}.{key}"] for key in keys])

    conv("stem", "_conv_stem")
    norm("stem", "_bn0")
    for number, (name, stage, _) in enumerate(_blocks(variant)):
        source = f"_blocks.{number}"
        if stage.expansion > 1:
            conv(f"{name}_expand", f"{source}._expand_conv")
            norm(f"{name}_expand", f"{source}._bn0")
        conv(f"{name}_depthwise", f"{source}._depthwise_conv")
        norm(f"{name}_depthwise", f"{source}._bn1")
        conv(f"{name}_project", f"{source}._project_conv")
        norm(f"{name}_project", f"{source}._bn2")
    conv("head", "_conv_head")
    norm("head", "_bn1")


def imagenet_head(weights: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Kernel [1280,1000] and bias [1000] of the last layer for the 1,000 classes of ImageNet."""
    return [np.ascontiguousarray(weights["_fc.weight"].T), weights["_fc.bias"]]


def _architecture(variant: Variant, recipe: Recipe, side: int) -> Architecture:
    """The architecture of a variant, for images of `side`×`side` pixels unless the user asks for others."""
    return Architecture(
        variant.name,
        partial(build_efficientnet_lite, variant),
        recipe,
        input_preference=InputPreference(size=(side, side), native=False, channels=3),
        has_kernel_size=False,
        bfloat16_on_cpu=False,
        features=FEATURES,
        weights_id=variant.weights.sha256,
    )


# A plan of 30 epochs overfitted 3,000 images at epoch 13, before the learning rate had decayed.
FINE_TUNING = Recipe(
    epochs=5,
    batch_size=32,
    learning_rate=3e-4,
    dropout=0.2,
    timed_epochs=12,
    # 500 images, 3 seeds: +1.7 and +1.3 points on test (clothing, CIFAR-10); the weight average +0.7 and +1.6.
    default_augment="strong",
    weight_average=0.97,
)
EFFICIENTNET_LITE0 = _architecture(LITE0, FINE_TUNING, side=160)
EFFICIENTNET_LITE2 = _architecture(LITE2, dataclasses.replace(FINE_TUNING, dropout=0.3), side=224)
