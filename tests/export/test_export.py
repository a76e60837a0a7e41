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
from trainer.export.freeze import Quantization, freeze, save_frozen
from trainer.export.freeze import convert as original
from trainer.export.quantization import QuantizationCheck
from trainer.models import build
from trainer.training.settings import resolve
from trainer.training.timer import CALIBRATION_IMAGES, Timer


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
    assert (exported.quantization == "float32") == (exported.check is None or not exported.check.passed)
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
    spoiled = original(tmp_path / "other", "int8")

    def convert(saved_model: Path, quantization: Quantization, images: object = None) -> bytes:
        return original(saved_model, "float32") if quantization == "float32" else spoiled

    monkeypatch.setattr(export_module, "convert", convert)
    monkeypatch.setattr(export_module, "measure_speedup", lambda *_: 2.0)
    caplog.set_level(logging.INFO, "trainer")
    exported = export(model, digits, tmp_path / "export")
    assert exported.quantization == "float32"
    assert exported.check is not None
    assert not exported.check.passed
    assert {kind for kind in ("int8", "static-int8") if f"{kind} is not served: " in caplog.text} == {
        "int8",
        "static-int8",
    }
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.tflite", "saved_model"]
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
    assert "int8 is not served: it is 0.9 times as fast as float32 here" in caplog.text
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.tflite", "saved_model"]


def test_a_network_that_cannot_be_quantized_is_served_in_float32(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def convert(saved_model: Path, quantization: Quantization, images: object = None) -> bytes:
        if quantization != "float32":
            raise RuntimeError("no kernel for FOO\nand more")
        return original(saved_model, "float32")

    monkeypatch.setattr(export_module, "convert", convert)
    assert export(network(), digits, tmp_path / "export").quantization == "float32"
    assert "int8 is not served: the network cannot be quantized so: no kernel for FOO\n" in caplog.text
    with pytest.raises(RunError, match=r"quantized to static-int8: no kernel for FOO$"):
        export(network(), digits, tmp_path / "forced", "static-int8")


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


@pytest.mark.parametrize(("speedups", "served"), [((3.0, 2.0), "static-int8"), ((2.0, 3.0), "int8")])
def test_the_fastest_file_that_is_as_good_is_served(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, speedups: tuple[float, float], served: str
) -> None:
    measured = dict(zip(("static-int8", "int8"), speedups, strict=True))
    monkeypatch.setattr(export_module, "measure_speedup", lambda file, *_: measured[file.name])
    monkeypatch.setattr(QuantizationCheck, "passed", True)  # an untrained network is as sure of any class
    assert export(network(), digits, tmp_path / "export").quantization == served


def test_static_int8_keeps_the_probabilities_in_float32(tmp_path: Path, digits: Dataset) -> None:
    """Convolutions are int8. The ranges are those of training images: validation images judge the result."""
    from ai_edge_litert.interpreter import Interpreter

    model = network()
    exported = export(model, digits, tmp_path / "export", "static-int8")
    assert exported.quantization == "static-int8"
    interpreter = Interpreter(str(tmp_path / "export" / "model.tflite"))
    types = {details["index"]: details["dtype"] for details in interpreter.get_tensor_details()}
    outputs = {
        (operation["op_name"], types[int(index)].__name__)
        for operation in interpreter._get_ops_details()
        for index in operation["outputs"]
    }
    assert {("CONV_2D", "int8"), ("SOFTMAX", "float32"), ("FULLY_CONNECTED", "float32")} <= outputs
    assert ("CONV_2D", "float32") not in outputs
    images = digits.val.read(np.arange(len(digits.val)))
    litert = LiteRTEngine(tmp_path / "export" / "model.tflite").predict(images)[PROBABILITIES]
    expected = tf.nn.softmax(model(images, training=False) / exported.temperature).numpy()
    assert float(np.abs(litert - expected).max()) < 0.05
    assert len(np.unique(litert)) > 1000
    drawn = digits.train.read(export_module.evenly_spaced(digits.train, CALIBRATION_IMAGES))
    assert drawn.shape == (CALIBRATION_IMAGES, 8, 8, 1)
    np.testing.assert_array_equal(drawn[[0, -1]], digits.train.read(np.array([0, len(digits.train) - 1])))


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_quantize_decides_by_itself(tmp_path: Path, digits: Dataset, quantize: str) -> None:
    exported = export(network(), digits, tmp_path / "export", quantize)
    assert exported.quantization == ("int8" if quantize == "int8" else "float32")
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.tflite", "saved_model"]


def test_tensorflow_still_has_what_is_private() -> None:
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.python.framework import convert_to_constants

    assert callable(mlir_quantize)
    assert callable(convert_to_constants.convert_variables_to_constants_v2)
