from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainer.errors import InputError
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
        ([(32, 20, 1), (28, 28, 1)], "none", "branched_cnn"),
        ([(7, 7, 1)], "none", "branched_cnn"),
        ([(28, 28, 1), (28, 30, 1)], "mnist", "branched_cnn"),
        ([(400, 300, 3)], "mnist", "branched_cnn"),
        ([(64, 64, 1)], "none", "efficientnet_lite0"),
        ([(28, 28, 3)], "none", "efficientnet_lite0"),
        ([(28, 28, 1), (28, 28, 3)], "none", "efficientnet_lite0"),
    ],
)
def test_small_gray_pictures_have_the_network_of_mnist(
    sizes: list[tuple[int, int, int]], normalize: str, name: str
) -> None:
    assert suggest(sizes, normalize).name == name


def test_small_pictures_of_several_sizes_stay_small() -> None:
    """At 64x64 branched_cnn has 132 million weights, for character crops as for others."""
    several = {(28, 20), (31, 32)}
    assert suggest([(*size, 1) for size in several], "none").wish.choose(several) == (32, 32)
    assert suggest([(28, 28, 1)], "none").wish.choose({(28, 28)}) == (28, 28)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it reads weights
def test_keras_fetches_imagenet_s_weights_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(3)
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3), pooling="avg")
    theirs.save_weights(tmp_path / "their.weights.h5")
    fetched = "keras.src.applications.mobilenet_v2.file_utils.get_file"
    monkeypatch.setattr(fetched, lambda *_, **__: str(tmp_path / "their.weights.h5"))
    options: dict[str, Any] = {"input_shape": (96, 96, 3), "classes": 3, "dropout": 0.0, "kernel_size": 3}
    model = build("keras.applications:MobileNetV2", weights="imagenet", **options)
    (ours,) = (layer for layer in model.layers if layer.name == theirs.name)
    for mine, original in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, original)
    # And is fed what it was trained on: from -1 to 1.
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    features = keras.Model(model.input, model.get_layer("dropout").input)(images).numpy()
    expected = theirs(images.astype(np.float32) / 127.5 - 1).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)

    def no_network(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure on https://…: None -- [Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(fetched, no_network)
    with pytest.raises(InputError, match=r"copy ~/\.keras/models here, or train from scratch with --weights none"):
        build("keras.applications:MobileNetV2", weights="imagenet", **options)
