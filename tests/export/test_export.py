from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.artifact.engine import PROBABILITIES, LiteRTEngine
from trainer.config import FitConfig
from trainer.data import Dataset, load
from trainer.errors import RunError
from trainer.export import export as export_module
from trainer.export.export import Exported
from trainer.export.freeze import convert as original
from trainer.export.freeze import freeze, save_frozen
from trainer.models import build
from trainer.training.settings import resolve
from trainer.training.timer import Timer


@pytest.fixture
def digits() -> Dataset:
    return load("builtin:digits")


def export(model: Any, dataset: Dataset, folder: Path, quantize: str = "auto", left_s: float | None = None) -> Exported:
    settings = resolve(FitConfig("builtin:digits", quantize=quantize), dataset)
    return export_module.export(model, dataset, folder, settings, Timer(left_s))


def network() -> Any:
    keras.utils.set_random_seed(0)
    return build("branched_cnn", input_shape=(8, 8, 1), classes=10, dropout=0.4, kernel_size=3)


def test_all_three_files_predict_the_same(tmp_path: Path, digits: Dataset) -> None:
    model = network()
    exported = export(model, digits, tmp_path / "export")
    assert exported.quantization == ("int8" if exported.check and exported.check.passed else "float32")
    images = digits.val.read(np.arange(32))
    expected = tf.nn.softmax(model(images, training=False) / exported.temperature).numpy()
    litert = LiteRTEngine(tmp_path / "export" / "model.tflite").predict(images)[PROBABILITIES]
    loaded = tf.saved_model.load(str(tmp_path / "export" / "saved_model"))
    assert not loaded.signatures["serving_default"].variables
    frozen = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(frozen, expected, atol=1e-6)
    np.testing.assert_allclose(litert, expected, atol=0.02)


def test_float32_is_served_where_the_check_fails(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = network()
    other = build("branched_cnn", input_shape=(8, 8, 1), classes=10, dropout=0.4, kernel_size=3)
    save_frozen(freeze(other), tmp_path / "other")
    spoiled = original(tmp_path / "other", quantize=True)

    def convert(saved_model: Path, *, quantize: bool) -> bytes:
        return spoiled if quantize else original(saved_model, quantize=False)

    monkeypatch.setattr(export_module, "convert", convert)
    monkeypatch.setattr(export_module, "measure_speedup", lambda *_: 2.0)
    caplog.set_level(logging.INFO, "trainer")
    exported = export(model, digits, tmp_path / "export")
    assert exported.quantization == "float32"
    assert exported.check is not None
    assert not exported.check.passed
    assert "float32 is served, not int8: " in caplog.text
    images = digits.val.read(np.arange(32))
    litert = LiteRTEngine(tmp_path / "export" / "model.tflite").predict(images)[PROBABILITIES]
    np.testing.assert_allclose(litert, tf.nn.softmax(model(images, training=False) / exported.temperature), atol=1e-5)


def test_slower_than_float32_is_not_compared(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export_module, "measure_speedup", lambda *_: 0.9)
    caplog.set_level(logging.INFO, "trainer")
    exported = export(network(), digits, tmp_path / "export")
    assert (exported.quantization, exported.check) == ("float32", None)
    assert "float32 is served: int8 is 0.9 times as fast here" in caplog.text
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.tflite", "saved_model"]


@pytest.mark.parametrize(("left_s", "tried"), [(3.0, False), (600.0, True)])
def test_int8_is_tried_where_the_time_limit_allows(
    tmp_path: Path, digits: Dataset, caplog: pytest.LogCaptureFixture, left_s: float, tried: bool
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    export(network(), digits, tmp_path / "export", left_s=left_s)
    assert ("--time-limit leaves no time to try int8" not in caplog.text) == tried


def test_an_output_that_is_not_finite_fails(tmp_path: Path, digits: Dataset) -> None:
    model = network()
    model.get_layer("output").bias.assign([np.nan] * 10)
    with pytest.raises(RunError, match="not finite; nothing is published"):
        export(model, digits, tmp_path / "export")


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_quantize_decides_by_itself(tmp_path: Path, digits: Dataset, quantize: str) -> None:
    exported = export(network(), digits, tmp_path / "export", quantize)
    assert exported.quantization == ("int8" if quantize == "int8" else "float32")
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.tflite", "saved_model"]


def test_tensorflow_still_has_convert_variables_to_constants_v2() -> None:
    from tensorflow.python.framework import convert_to_constants

    assert callable(convert_to_constants.convert_variables_to_constants_v2)
