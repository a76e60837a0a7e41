from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from shape_images import SIDE, arrow, folder_of, shape
from small_training import Recorder, StopWhen, make_network, run_training, start_of

from trainer.config import FitConfig
from trainer.data import Dataset, Split, load
from trainer.data.batches import predict_batches
from trainer.errors import InputError, Interrupted
from trainer.features import flip_check
from trainer.features.extract import Features
from trainer.features.flip_check import check_flips
from trainer.features.warm_start import fit_warm_start
from trainer.models import build
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0
from trainer.reporting import metrics
from trainer.signals import Signals


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    folder = folder_of(tmp_path / "shapes", shape, ("disc", "square"), 40)
    return load(str(folder), image_size=(SIDE, SIDE), input_preference=lambda _: EFFICIENTNET_LITE0.input_preference)


def stop_at_second_check() -> StopWhen:
    signals = StopWhen(lambda: signals.checks == 2)
    return signals


def config(**options: object) -> FitConfig:
    defaults: dict[str, object] = {"dataset": "x", "model": "efficientnet_lite0", "precision": "float32"}
    return FitConfig(**(defaults | options))  # type: ignore[arg-type]


def test_the_linear_probe_alone(tmp_path: Path, shapes: Dataset) -> None:
    recorder = Recorder()
    trained = run_training(tmp_path / "run", shapes, config(fine_tune="none"), recorder)
    assert [entry["epoch"] for entry in recorder.epochs] == [0]
    assert recorder.epochs[0]["val_accuracy"] >= 0.8
    # The network with the probe as its last layer predicts as the probe does from the features.
    outputs = predict_batches(trained.network.predict, shapes.val, "validating")
    evaluation = metrics.evaluate(shapes.val.labels, outputs["probabilities"])
    assert evaluation.accuracy == pytest.approx(recorder.epochs[0]["val_accuracy"], abs=0.13)
    assert evaluation.loss == pytest.approx(recorder.epochs[0]["val_loss"], rel=0.05)
    assert trained.start.flips
    # The learning curve comes from the same features.
    curve = trained.start.curve
    assert curve
    assert curve.images[-1] == len(shapes.train)
    assert curve.correct.shape == (4, 4, len(shapes.val))
    assert curve.accuracy[-1] >= 0.8


@pytest.mark.slow
def test_fine_tuning_starts_from_the_probe_and_goes_on_after_an_interruption(tmp_path: Path, shapes: Dataset) -> None:
    settings, run = config(epochs=1, batch_size=16), tmp_path / "run"
    network = make_network(settings, shapes)
    with pytest.raises(Interrupted):  # while features are computed
        run_training(run, shapes, settings, signals=stop_at_second_check(), network=network)
    assert not list(run.glob("step-*"))
    first = Recorder()
    with pytest.raises(Interrupted):  # after a step
        run_training(run, shapes, settings, first, StopWhen(lambda: bool(first.epochs)), network=network)
    assert [entry["epoch"] for entry in first.epochs] == [0]
    second = Recorder()
    run_training(run, shapes, settings, second)
    assert [entry["epoch"] for entry in second.epochs] == [1]


def test_features_are_computed_once(tmp_path: Path, shapes: Dataset) -> None:
    model = build("efficientnet_lite0", input_shape=(SIDE, SIDE, 3), classes=2, dropout=0, kernel_size=3)
    first = StopWhen()
    features = Features(EFFICIENTNET_LITE0, model, first.check_interrupted).of(shapes.val)
    assert features.shape == (len(shapes.val), 1280)
    assert first.checks > 0
    again = StopWhen()
    np.testing.assert_array_equal(Features(EFFICIENTNET_LITE0, model, again.check_interrupted).of(shapes.val), features)
    assert again.checks == 0
    import keras

    exact = keras.Model(model.input, model.get_layer("features").output)(shapes.val.read(np.arange(len(shapes.val))))
    np.testing.assert_allclose(features, exact, rtol=1e-3, atol=1e-3)


def test_classes_that_mirror_into_each_other_are_not_mirrored(
    tmp_path: Path, shapes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    model = build("efficientnet_lite0", input_shape=(SIDE, SIDE, 3), classes=2, dropout=0, kernel_size=3)
    features = Features(EFFICIENTNET_LITE0, model, Signals().check_interrupted)

    def flips(dataset: Dataset, **options: object) -> bool:
        return fit_warm_start(features, dataset, config(**options)).flips

    assert flips(shapes)
    folder = folder_of(tmp_path / "arrows", arrow, ("left", "right"), 40)
    arrows = load(str(folder), image_size=(SIDE, SIDE), input_preference=lambda _: EFFICIENTNET_LITE0.input_preference)
    assert not flips(arrows)
    assert "images are not mirrored in training" in caplog.text
    assert flips(arrows, flip="on")
    assert not flips(shapes, flip="off")


@pytest.mark.slow
def test_a_network_from_scratch_asks_the_pretrained_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    alike = load(str(folder_of(tmp_path / "alike", shape, ("first", "second"), 80)), image_size=(24, 24))
    assert alike.pixels.channels == 3
    assert check_flips(alike, "auto", float("inf"), Signals().check_interrupted)
    assert "images are not mirrored in training" not in caplog.text
    folder = folder_of(tmp_path / "pictures", arrow, ("first", "second"), 80)
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    gray = load(str(folder), image_size=(24, 24))
    assert gray.pixels.channels == 1
    start = start_of(gray, config(model="compact_resnet"))
    assert not start.flips
    assert start.curve is None
    assert "images are not mirrored in training" in caplog.text


def test_the_flip_check_takes_a_small_share_of_a_time_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    alike = load(str(folder_of(tmp_path / "alike", shape, ("first", "second"), 40)), image_size=(24, 24))
    check = Signals().check_interrupted
    assert not check_flips(alike, "auto", 30.0, check)
    assert "--time-limit leaves no time to check" in caplog.text
    assert check_flips(alike, "on", 30.0, check)
    checked: list[int] = []

    class Counted(Features):
        def of(self, split: Split, *, mirrored: bool = False) -> NDArray[np.float32]:
            checked.append(len(split))
            return super().of(split, mirrored=mirrored)

    monkeypatch.setattr(flip_check, "Features", Counted)
    check_flips(alike, "auto", 3600.0, check)
    assert sum(checked[2:]) >= 2 * len(alike.val) + len(alike.train)


def test_a_time_limit_that_is_too_short_is_refused_before_training(tmp_path: Path, shapes: Dataset) -> None:
    with pytest.raises(InputError, match=r"--time-limit: 2s are too short .*; at least \d+s are needed"):
        run_training(tmp_path / "run", shapes, config(time_limit=2.0))


@pytest.mark.slow
def test_training_ends_within_its_time_limit(tmp_path: Path, shapes: Dataset) -> None:
    recorder = Recorder()
    # So many epochs take minutes anywhere.
    settings = config(time_limit=45.0, batch_size=16, epochs=1000)
    result = run_training(tmp_path / "run", shapes, settings, recorder).result
    assert 0 < recorder.epochs[-1]["epoch"] <= result.plan.epochs < 1000
    assert result.end == "no time"
