from __future__ import annotations

import numpy as np
import pytest

from trainer.config import InputError
from trainer.models import build, suggest


def test_branched_cnn_is_the_given_network() -> None:
    model = build("branched_cnn", input_shape=(28, 28, 1), classes=10, dropout=0.4, kernel_size=3)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert shapes == {
        "images": (28, 28, 1),
        "rescale": (28, 28, 1),
        "conv1": (28, 28, 32),
        "pool1": (14, 14, 32),
        "conv2_1": (14, 14, 64),
        "conv2_2": (14, 14, 64),
        "pool2_1": (7, 7, 64),
        "pool2_2": (7, 7, 64),
        "conv3_1": (7, 7, 256),
        "conv3_2": (7, 7, 256),
        "conv3": (7, 7, 512),
        "flatten": (25088,),
        "fc1": (1000,),
        "dropout1": (1000,),
        "fc2": (500,),
        "dropout2": (500,),
        "output": (10,),
    }
    reads = {
        layer.name: [node.operation.name for node in layer._inbound_nodes[0].parent_nodes] for layer in model.layers[1:]
    }
    assert reads == {
        "rescale": ["images"],
        "conv1": ["rescale"],
        "pool1": ["conv1"],
        "conv2_1": ["pool1"],
        "conv2_2": ["pool1"],
        "pool2_1": ["conv2_1"],
        "pool2_2": ["conv2_2"],
        "conv3_1": ["pool2_1"],
        "conv3_2": ["pool2_2"],
        "conv3": ["conv3_1", "conv3_2"],
        "flatten": ["conv3"],
        "fc1": ["flatten"],
        "dropout1": ["fc1"],
        "fc2": ["dropout1"],
        "dropout2": ["fc2"],
        "output": ["dropout2"],
    }
    for name in ("conv1", "conv2_1", "conv2_2", "conv3_1", "conv3_2"):
        layer = model.get_layer(name)
        assert layer.kernel_size == (3, 3)
        assert layer.activation.__name__ == "relu"
    assert model.count_params() == 25_927_246


@pytest.mark.parametrize("name", ["branched_cnn", "compact_resnet", "keras.applications:MobileNetV3Small"])
def test_every_model_takes_bytes_and_gives_float32_logits(name: str) -> None:
    model = build(name, input_shape=(32, 40, 3), classes=7, dropout=0.1, kernel_size=3)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    logits = model(images, training=False)
    assert tuple(logits.shape) == (2, 7)
    assert logits.dtype.name == "float32"
    assert np.isfinite(logits.numpy()).all()


def test_compact_resnet_does_not_grow_with_the_picture() -> None:
    small, large = (
        build("compact_resnet", input_shape=(side, side, 3), classes=10, dropout=0.1, kernel_size=3)
        for side in (32, 256)
    )
    assert small.count_params() == large.count_params() < 1_000_000


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("branched_cm", (28, 28, 1), "did you mean branched_cnn"),
        ("keras.applications:ResNet51", (64, 64, 3), "did you mean ResNet50"),
        ("branched_cnn", (300, 300, 3), "2,880,839,822 parameters for 300x300 images"),
        ("branched_cnn", (300, 300, 3), "smaller --image-size, or --model compact_resnet"),
        ("keras.applications:InceptionV3", (32, 32, 3), "does not take 32x32x3 images"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, input_shape=shape, classes=10, dropout=0.1, kernel_size=3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "normalize", "name"),
    [
        ([(28, 28, 1)], "none", "branched_cnn"),
        ([(32, 20, 1)], "none", "branched_cnn"),
        # Decoded to 64x64, where it has 132 million weights.
        ([(32, 20, 1), (28, 28, 1)], "none", "compact_resnet"),
        ([(7, 7, 1)], "none", "compact_resnet"),
        ([(28, 28, 1), (28, 30, 1)], "mnist", "branched_cnn"),
        ([(400, 300, 3)], "mnist", "branched_cnn"),
        ([(64, 64, 1)], "none", "compact_resnet"),
        ([(28, 28, 3)], "none", "compact_resnet"),
        ([(28, 28, 1), (28, 28, 3)], "none", "compact_resnet"),
    ],
)
def test_the_default_is_suggested_for_digits_alone(
    sizes: list[tuple[int, int, int]], normalize: str, name: str
) -> None:
    assert suggest(sizes, normalize).name == name
