from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from trainer.config import FitConfig
from trainer.data import Dataset, load
from trainer.errors import InputError, Interrupted
from trainer.features.extract import Features
from trainer.features.warm_start import may_mirror, start_from_head
from trainer.models import build
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0
from trainer.runs.checkpoints import Checkpoints
from trainer.training.estimator import Estimator
from trainer.training.timer import Clock

SIDE = 64


class Watcher:
    """Records epochs; interrupts when it is asked for the `stop_at`th time, or first asked once there is a head."""

    def __init__(self, stop_at: int | None = None, *, stop_after_head: bool = False) -> None:
        self.epochs: list[dict[str, float]] = []
        self.asked = 0
        self._stop_at = stop_at
        self._stop_after_head = stop_after_head

    def on_progress(self, step: int, total_steps: int) -> None:
        pass

    def on_epoch(self, entry: dict[str, float], step: int) -> None:
        self.epochs.append(entry)

    def check_interrupted(self) -> None:
        self.asked += 1
        if self.asked == self._stop_at or (self._stop_after_head and self.epochs):
            raise Interrupted("stop", 143)


def arrow(points_left: bool, seed: int) -> Image.Image:
    """An arrow on a noisy ground, somewhere."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(100, 156, (SIDE, SIDE, 3), np.uint8))
    x, y = random.integers(14, 34, 2)
    points = [(x, y + 10), (x + 14, y), (x + 14, y + 20)]
    if not points_left:
        points = [(2 * x + 14 - px, py) for px, py in points]
    ImageDraw.Draw(image).polygon([(int(px), int(py)) for px, py in points], fill=(220, 30, 30))
    return image


def shape(round_: bool, seed: int) -> Image.Image:
    """A disc or a square, somewhere: mirrored it is the same."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(100, 156, (SIDE, SIDE, 3), np.uint8))
    x, y = (int(value) for value in random.integers(8, 30, 2))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if round_ else draw.rectangle)((x, y, x + 26, y + 26), fill=(30, 200, 60))
    return image


def folder_of(path: Path, make: object, names: tuple[str, str], each: int) -> Path:
    for index, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for number in range(each):
            make(index == 0, 2 * number + index).save(path / name / f"{number}.png")  # type: ignore[operator]
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    folder = folder_of(tmp_path / "shapes", shape, ("disc", "square"), 40)
    return load(str(folder), image_size=(SIDE, SIDE), wish=lambda _: EFFICIENTNET_LITE0.wish)


def config(**options: object) -> FitConfig:
    defaults: dict[str, object] = {"dataset": "x", "model": "efficientnet_lite0", "precision": "float32"}
    return FitConfig(**(defaults | options))  # type: ignore[arg-type]


def train(folder: Path, dataset: Dataset, settings: FitConfig, watcher: Watcher) -> Estimator:
    estimator = Estimator(settings, dataset)
    estimator.train_and_evaluate(Checkpoints(folder, estimator.checkpoint), watcher)
    return estimator


def test_the_head_alone(tmp_path: Path, shapes: Dataset) -> None:
    watcher = Watcher()
    estimator = train(tmp_path / "run", shapes, config(fine_tune="none"), watcher)
    assert [entry["epoch"] for entry in watcher.epochs] == [0]
    assert watcher.epochs[0]["val_accuracy"] >= 0.8
    # The network with the head says what the head said of the features.
    assert estimator.evaluate(shapes.val).accuracy == pytest.approx(watcher.epochs[0]["val_accuracy"], abs=0.13)
    assert estimator.evaluate(shapes.val).loss == pytest.approx(watcher.epochs[0]["val_loss"], rel=0.05)
    assert estimator.flips
    # What more images would bring is known from the same features.
    curve = estimator.learning_curve
    assert curve
    assert curve.images[-1] == len(shapes.train)
    assert curve.right.shape == (4, 4, len(shapes.val))
    assert curve.accuracy[-1] >= 0.8


def test_fine_tuning_starts_from_the_head_and_goes_on_after_an_interruption(tmp_path: Path, shapes: Dataset) -> None:
    settings = config(epochs=1, batch_size=16)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", shapes, settings, Watcher(stop_at=2))  # while features are computed
    assert not list((tmp_path / "run").glob("step-*"))
    first = Watcher(stop_after_head=True)  # after the first step
    with pytest.raises(Interrupted):
        train(tmp_path / "run", shapes, settings, first)
    assert [entry["epoch"] for entry in first.epochs] == [0]
    second = Watcher()
    train(tmp_path / "run", shapes, settings, second)
    assert [entry["epoch"] for entry in second.epochs] == [1]


def test_features_are_computed_once(tmp_path: Path, shapes: Dataset) -> None:
    model = build("efficientnet_lite0", input_shape=(SIDE, SIDE, 3), classes=2, dropout=0, kernel_size=3)
    first = Watcher()
    features = Features(EFFICIENTNET_LITE0, model, first.check_interrupted).of(shapes.val)
    assert features.shape == (len(shapes.val), 1280)
    assert first.asked > 0
    again = Watcher()
    np.testing.assert_array_equal(Features(EFFICIENTNET_LITE0, model, again.check_interrupted).of(shapes.val), features)
    assert again.asked == 0
    import keras

    exact = keras.Model(model.input, model.get_layer("features").output)(shapes.val.read(np.arange(len(shapes.val))))
    np.testing.assert_allclose(features, exact, rtol=1e-3, atol=1e-3)


def test_classes_that_mirror_into_each_other_are_not_mirrored(
    tmp_path: Path, shapes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    model = build("efficientnet_lite0", input_shape=(SIDE, SIDE, 3), classes=2, dropout=0, kernel_size=3)
    features = Features(EFFICIENTNET_LITE0, model, Watcher().check_interrupted)

    def flips(dataset: Dataset, **options: object) -> bool:
        return start_from_head(features, dataset, config(**options)).flips

    assert flips(shapes)
    folder = folder_of(tmp_path / "arrows", arrow, ("left", "right"), 40)
    arrows = load(str(folder), image_size=(SIDE, SIDE), wish=lambda _: EFFICIENTNET_LITE0.wish)
    assert not flips(arrows)
    assert "images are not mirrored in training" in caplog.text
    assert flips(arrows, flip="on")
    assert not flips(shapes, flip="off")


def test_a_network_from_scratch_asks_the_pretrained_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    alike = load(str(folder_of(tmp_path / "alike", shape, ("first", "second"), 80)), image_size=(24, 24))
    assert alike.pixels.channels == 3
    assert may_mirror(alike, Watcher().check_interrupted)
    assert "images are not mirrored in training" not in caplog.text
    folder = folder_of(tmp_path / "pictures", arrow, ("first", "second"), 80)
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    gray = load(str(folder), image_size=(24, 24))
    assert gray.pixels.channels == 1
    estimator = train(tmp_path / "run", gray, config(model="compact_resnet", epochs=1, batch_size=32), Watcher())
    assert not estimator.flips
    assert estimator.learning_curve is None
    assert "images are not mirrored in training" in caplog.text


def test_a_time_that_is_too_short_is_refused_before_training(tmp_path: Path, shapes: Dataset) -> None:
    estimator = Estimator(config(time_limit=2.0), shapes, clock=Clock(2.0))
    with pytest.raises(InputError, match=r"--time-limit: 2s are too short .*; at least \d+s are needed"):
        estimator.train_and_evaluate(Checkpoints(tmp_path / "run", estimator.checkpoint), Watcher())


def test_training_ends_when_its_time_does(tmp_path: Path, shapes: Dataset) -> None:
    watcher = Watcher()
    clock = Clock(45.0)
    # So many epochs take minutes anywhere.
    estimator = Estimator(config(time_limit=45.0, batch_size=16, epochs=1000), shapes, clock=clock)
    estimator.train_and_evaluate(Checkpoints(tmp_path / "run", estimator.checkpoint), watcher)
    assert 0 < watcher.epochs[-1]["epoch"] <= estimator.plan.epochs < 1000
    assert clock.left_s > 0  # for the export
    assert clock.spent_s["what more images would bring"] < 3
