from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES, Engine, LiteRTEngine
from trainer.artifact.explain import ACTIVATION, explain, load_activation_engine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.export.freeze import Quantization, convert, freeze, save_activation, save_frozen, with_features
from trainer.features.ood import fit_ood_score
from trainer.models import build
from trainer.models.efficientnet_lite import imagenet_head
from trainer.models.lite_weights import LITE0_WEIGHTS, read_weights


@pytest.fixture(scope="module")
def lite0() -> Any:
    """With the head for ImageNet's classes."""
    model = build("efficientnet_lite0", input_shape=(160, 160, 3), classes=1000, dropout=0.2, kernel_size=3)
    model.layers[-1].set_weights(imagenet_head(read_weights(LITE0_WEIGHTS)))
    return model


@pytest.fixture(scope="module")
def engines(lite0: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    folder: Path = tmp_path_factory.mktemp("lite0")
    save_activation(lite0, folder / EXPLAIN_FILE)
    save_frozen(freeze(lite0), folder / "saved_model")
    (folder / "model.tflite").write_bytes(convert(folder / "saved_model", "float32"))
    activation = load_activation_engine(folder)
    assert activation
    return LiteRTEngine(folder / "model.tflite"), activation


def test_a_network_whose_gradient_cannot_be_saved_is_frozen(tmp_path: Path) -> None:
    """As EfficientNet and EfficientNetV2 of keras.applications, whose activation is swish."""
    images = keras.Input((8, 8, 3), dtype="uint8")
    values = keras.layers.Conv2D(4, 3, activation="swish")(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(values)))
    save_frozen(freeze(model), tmp_path / "saved_model")
    (tmp_path / "model.tflite").write_bytes(convert(tmp_path / "saved_model", "float32"))
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    expected = keras.ops.softmax(model(noise, training=False))
    np.testing.assert_allclose(
        LiteRTEngine(tmp_path / "model.tflite").predict(noise)[PROBABILITIES], expected, atol=1e-5
    )


@pytest.mark.slow
def test_static_int8_refuses_images_from_elsewhere(lite0: Any, tmp_path: Path) -> None:
    """As float32 does: the scores of the images that the ranges are measured on do not limit those of others."""
    random = np.random.default_rng(0)
    photo = load_sample_image("china.jpg")
    corners = random.integers(0, [photo.shape[0] - 160, photo.shape[1] - 160], (96, 2))
    crops = np.stack([photo[top : top + 160, left : left + 160] for top, left in corners])
    features = with_features(lite0, "features")(crops)[1].numpy()
    score = fit_ood_score(features[:48], features[48:])
    save_frozen(freeze(lite0, 1.0, score, "features"), tmp_path / "saved_model")
    noise = random.integers(0, 256, (8, 160, 160, 3), np.uint8)
    kinds: tuple[Quantization, ...] = ("float32", "static-int8")
    for kind in kinds:
        file = tmp_path / kind
        file.write_bytes(convert(tmp_path / "saved_model", kind, crops[:48]))
        engine = LiteRTEngine(file)
        assert engine.predict(noise)[OOD_SCORE] == pytest.approx(1)
        assert 0.2 < engine.predict(crops[48:])[OOD_SCORE].mean() < 0.8


def flower(side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(load_sample_image("flower.jpg")[:, 100:527]).resize((side, side)))


def test_the_activation_map_is_the_very_sum_that_the_logits_are(lite0: Any, engines: tuple[Engine, Engine]) -> None:
    images = flower(160)[None]
    places = engines[1].predict(images)[ACTIVATION]
    logits = lite0(images, training=False).numpy()
    assert places.shape == (1, 5, 5, 1000)
    # The weights lie in half precision.
    np.testing.assert_allclose(places.mean((1, 2)) + lite0.layers[-1].bias.numpy(), logits, atol=0.05)


@pytest.mark.parametrize("corner", [(0, 0), (0, 80), (80, 80)])
@pytest.mark.parametrize("way", ["activation", "covers"])
def test_a_picture_in_a_corner_of_a_blank_one_has_its_heat_there(
    engines: tuple[Engine, Engine], corner: tuple[int, int], way: str
) -> None:
    top, left = corner
    image = np.full((160, 160, 3), 127, np.uint8)
    image[top : top + 80, left : left + 80] = flower(80)
    engine, activation = engines
    index = int(engine.predict(image[None])[PROBABILITIES].argmax())
    heat = explain(image, index, engine, activation if way == "activation" else None)
    inside = np.zeros(heat.shape, bool)
    inside[top : top + 80, left : left + 80] = True
    assert heat[inside].mean() > 2 * heat[~inside].mean()
    row, column = divmod(int(heat.argmax()), 160)
    assert (row // 80 * 80, column // 80 * 80) == corner


@pytest.mark.parametrize(
    ("name", "side", "pools"),
    [("compact_resnet", 32, True), ("keras.applications:MobileNetV2", 32, True), ("branched_cnn", 28, False)],
)
def test_every_network_that_pools_has_one(tmp_path: Path, name: str, side: int, pools: bool) -> None:
    channels = 3 if pools else 1
    model = build(name, input_shape=(side, side, channels), classes=4, dropout=0.4, kernel_size=3)
    save_activation(model, tmp_path / EXPLAIN_FILE)
    engine = load_activation_engine(tmp_path)
    assert (engine is not None) == pools
    if engine:
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, channels), np.uint8)
        places = engine.predict(images)[ACTIVATION]
        logits = model(images, training=False).numpy()
        np.testing.assert_allclose(places.mean((1, 2)) + model.layers[-1].bias.numpy(), logits, atol=0.03)
