from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainer.errors import InputError
from trainer.models import build, default_architecture


def test_branched_cnn_has_the_specified_layers() -> None:
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


def test_compact_resnet_does_not_grow_with_the_image() -> None:
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
        ("branched_cnn", (300, 300, 3), "2,880,839,822"),
        ("branched_cnn", (300, 300, 3), "--model compact_resnet"),
        ("keras.applications:InceptionV3", (32, 32, 3), "does not take 32x32x3 images"),
    ],
)
def test_models_that_cannot_be_built_are_refused(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, input_shape=shape, classes=10, dropout=0.1, kernel_size=3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "normalize", "name"),
    [
        ([(28, 28, 1)], "none", "branched_cnn"),
        ([(32, 20, 1)], "none", "branched_cnn"),
        # Decoded to 32x32: at 64x64 it has 132 million parameters.
        ([(32, 20, 1), (28, 28, 1)], "none", "branched_cnn"),
        ([(7, 7, 1)], "none", "branched_cnn"),
        ([(28, 28, 1), (28, 30, 1)], "mnist", "branched_cnn"),
        ([(400, 300, 3)], "mnist", "branched_cnn"),
        ([(64, 64, 1)], "none", "efficientnet_lite0"),
        ([(28, 28, 3)], "none", "efficientnet_lite0"),
        ([(28, 28, 1), (28, 28, 3)], "none", "efficientnet_lite0"),
    ],
)
def test_the_default_for_small_gray_images_is_branched_cnn(
    sizes: list[tuple[int, int, int]], normalize: str, name: str
) -> None:
    assert default_architecture(sizes, normalize).name == name


def test_small_images_of_several_sizes_are_decoded_small() -> None:
    """At 64x64 branched_cnn has 132 million parameters."""
    several = {(28, 20), (31, 32)}
    architecture = default_architecture([(*size, 1) for size in several], "none")
    assert architecture.input_preference.choose_size(several) == (32, 32)
    assert default_architecture([(28, 28, 1)], "none").input_preference.choose_size({(28, 28)}) == (28, 28)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it reads weights
def test_keras_downloads_imagenet_weights_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.utils.set_random_seed(3)
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3), pooling="avg")
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    get_file = "keras.src.applications.mobilenet_v2.file_utils.get_file"
    monkeypatch.setattr(get_file, lambda *_, **__: str(tmp_path / "backbone.weights.h5"))
    options: dict[str, Any] = {"input_shape": (96, 96, 3), "classes": 3, "dropout": 0.0, "kernel_size": 3}
    model = build("keras.applications:MobileNetV2", weights="imagenet", **options)
    (inner,) = (layer for layer in model.layers if layer.name == backbone.name)
    for loaded, original in zip(inner.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, original)
    # Pixels are scaled as in its training: from -1 to 1.
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    features = keras.Model(model.input, model.get_layer("dropout").input)(images).numpy()
    expected = backbone(images.astype(np.float32) / 127.5 - 1).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)

    def no_network(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure on https://…: None -- [Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(get_file, no_network)
    with pytest.raises(InputError, match=r"~/\.keras/models .*--weights none"):
        build("keras.applications:MobileNetV2", weights="imagenet", **options)
