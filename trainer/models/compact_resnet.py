"""A compact residual network for larger colour images.

Pre-activation residual blocks (He et al., "Identity Mappings in Deep Residual Networks", 2016) and global
average pooling, so that its size (about 700,000 parameters) does not grow with the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.config import Recipe
from trainer.models.architecture import Architecture

if TYPE_CHECKING:
    import keras

WIDTHS = (32, 64, 128)  # filters of each stage; all stages but the first halve height and width
BLOCKS = 2  # residual blocks in a stage
FROM_SCRATCH = Recipe(epochs=20, batch_size=128, learning_rate=1e-3)


def build_compact_resnet(
    input_shape: tuple[int, int, int], classes: int, *, dropout: float, kernel_size: int
) -> keras.Model:
    """Build the network: uint8 [B,H,W,C] → float32 logits [B,classes]."""
    import keras
    from keras import layers

    def conv(filters: int, size: int = kernel_size, strides: int = 1) -> layers.Layer:
        return layers.Conv2D(
            filters, size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
        )

    def normalize(x: Any) -> Any:
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))

    def block(x: Any, filters: int, strides: int) -> Any:
        y = normalize(x)
        shortcut = x if strides == 1 and x.shape[-1] == filters else conv(filters, 1, strides)(y)
        y = conv(filters, strides=strides)(y)
        y = conv(filters)(normalize(y))
        return layers.Add()([shortcut, y])

    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
    # Halve height and width early: the full resolution would take most of the computation.
    x = layers.MaxPooling2D(2)(conv(WIDTHS[0])(x))
    for stage, filters in enumerate(WIDTHS):
        for index in range(BLOCKS):
            x = block(x, filters, strides=2 if stage > 0 and index == 0 else 1)
    x = layers.GlobalAveragePooling2D(name="pool")(normalize(x))
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, dtype="float32", name="output")(x)
    return keras.Model(images, logits, name="compact_resnet")


COMPACT_RESNET = Architecture("compact_resnet", build_compact_resnet, FROM_SCRATCH)
