from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.reporting import figures, metrics
from trainer.reporting.learning_curve import LearningCurve

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1.2 / epoch, "val_accuracy": 0.6}
    for epoch in (1, 2, 3)
]
CURVE = LearningCurve(
    (25, 50, 75, 100), np.arange(120) < np.array([[61, 59], [73, 71], [82, 80], [90, 90]])[:, :, None]
)
NO_SALIENCY = np.zeros((8, 8), np.float32)


def _pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _has_colour(image: NDArray[np.uint8], colour: str) -> bool:
    return bool((image == np.array(list(bytes.fromhex(colour[1:])))).all(2).any())


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (10, 3), (100, 1)])
def test_figures_show_something(classes: int, channels: int) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, 300).astype(np.int32)
    probabilities = generator.dirichlet(np.ones(classes), 300).astype(np.float32)
    names = ["naïve $x$ 日本 " * 3, "b_c\n\t", *(f"class {index}" for index in range(2, classes))]
    images = generator.integers(0, 256, (5, 8, 8, channels), dtype=np.uint8)
    mistakes = [metrics.Mistake("a/1.jpg", image, 0, 1, 0.9, NO_SALIENCY) for image in images]
    files = figures.draw(names, metrics.evaluate(truth, probabilities), HISTORY, mistakes, CURVE)
    assert set(files) == {"confusion", "calibration", "mistakes", "learning_curves", "more_images"}
    drawn = {name: _pixels(png) for name, png in files.items()}
    for name, image in drawn.items():
        assert 250 <= min(image.shape[:2]) <= max(image.shape[:2]) <= 2400, name
        assert image.std() > 5, name
    for name in ("learning_curves", "more_images"):
        assert _has_colour(drawn[name], figures.BLUE), name
        assert _has_colour(drawn[name], figures.ORANGE), name


def test_mistake_is_drawn_with_its_own_pixels() -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    mistake = metrics.Mistake("a/1.jpg", np.full((8, 8, 3), (200, 10, 30), np.uint8), 0, 1, 0.9, NO_SALIENCY)
    files = figures.draw(["a", "b"], evaluation, None, [mistake])
    assert "learning_curves" not in files
    assert _has_colour(_pixels(files["mistakes"]), "#c80a1e")
