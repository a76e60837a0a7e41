"""The two-branch CNN, the default architecture: 25,927,246 parameters for MNIST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config import Recipe
from trainer.models.architecture import Architecture

if TYPE_CHECKING:
    import keras


def build_branched_cnn(
    input_shape: tuple[int, int, int], classes: int, *, dropout: float, kernel_size: int
) -> keras.Model:
    """Build the network: uint8 [B,H,W,C] → float32 logits [B,classes].

    conv1 feeds two branches (conv2_1 → conv3_1, conv2_2 → conv3_2), which are concatenated before two Dense layers. A
    2×2 max-pool follows each of conv1, conv2_1 and conv2_2.
    """
    import keras
    from keras import layers

    def conv(filters: int, name: str) -> layers.Layer:
        return layers.Conv2D(
            filters, kernel_size, padding="same", activation="relu", kernel_initializer="he_normal", name=name
        )

    def dense(units: int, name: str) -> layers.Layer:
        return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=name)

    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = conv(32, "conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    left = layers.MaxPooling2D(2, name="pool2_1")(conv(64, "conv2_1")(x))
    right = layers.MaxPooling2D(2, name="pool2_2")(conv(64, "conv2_2")(x))
    left = conv(256, "conv3_1")(left)
    right = conv(256, "conv3_2")(right)
    x = layers.Concatenate(name="conv3")([left, right])
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(dropout, name="dropout1")(dense(1000, "fc1")(x))
    x = layers.Dropout(dropout, name="dropout2")(dense(500, "fc2")(x))
    # Always float32: the loss needs the precision.
    logits = layers.Dense(classes, dtype="float32", name="output")(x)
    return keras.Model(images, logits, name="branched_cnn")


def count_branched_cnn(input_shape: tuple[int, int, int], classes: int, kernel_size: int) -> int:
    """Number of parameters, computed without building the network."""
    height, width, channels = input_shape
    area = kernel_size**2
    convolutions = (area * channels + 1) * 32 + 2 * (area * 32 + 1) * 64 + 2 * (area * 64 + 1) * 256
    flat = (height // 4) * (width // 4) * 512
    return convolutions + (flat + 1) * 1000 + 1001 * 500 + 501 * classes


BRANCHED_CNN = Architecture(
    "branched_cnn",
    build_branched_cnn,
    # After five epochs, MNIST gains less than the noise between seeds.
    Recipe(epochs=5, batch_size=128, learning_rate=1e-3),
    count=count_branched_cnn,
)
