"""Export: calibrate and freeze the trained network, quantize it, and choose the file that is served."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, LiteRTEngine, Outputs
from trainer.artifact.spec import EXPLAIN_FILE, MODEL_FILE, SAVED_MODEL
from trainer.data import Split
from trainer.data.batches import predict_batches
from trainer.errors import DivergedError, RunError
from trainer.export.calibration import fit_temperature, fit_threshold
from trainer.export.freeze import convert, freeze, save_activation, save_frozen, with_features
from trainer.export.quantization import QuantizationCheck, compare, measure_speedup
from trainer.features.ood import choose_references, fit_ood_score
from trainer.training.settings import FitSettings
from trainer.training.timer import REPORT_S, SAFETY, Timer

if TYPE_CHECKING:
    from trainer.data import Dataset

log = logging.getLogger("trainer")

MAX_DEVIATION = 1e-3  # between a probability of LiteRT's float32 network and TensorFlow's
LOGITS, FEATURES = "logits", "features"


@dataclass(frozen=True)
class Exported:
    """The network in `model.tflite`."""

    quantization: str  # int8 | float32
    check: QuantizationCheck | None  # None: int8 was not compared (not wanted, no time, or no faster)
    val_accuracy: float
    temperature: float
    threshold: float


def export(model: Any, dataset: Dataset, folder: Path, settings: FitSettings, timer: Timer) -> Exported:
    """Write `saved_model/`, `model.tflite` and, where the network pools its features, `explain.tflite` of a float32
    `model` into `folder`, which is replaced.

    The first two map `images` uint8 [N,H,W,C] to `probabilities` float32 [N,K], calibrated on validation, and for a
    pretrained network to the out-of-distribution score `novelty` float32 [N]. `--quantize auto` serves int8 where it is
    as good as float32 (`QuantizationCheck.passed`) and faster on this machine, and tries it if the `timer` has time
    left; `none` and `int8` force the choice. Predictions above the threshold reach the precision `--confidence` on
    validation.
    Raises DivergedError if an output is not finite, RunError if LiteRT's float32 network predicts differently.
    """
    val, quantize, confidence = dataset.val, settings.config.quantize, settings.config.confidence
    log.info("export: freezing the network; its files are compared on %d validation images", len(val))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frozen, temperature, reference = _calibrate(model, dataset, settings.architecture.features)
    save_frozen(frozen, folder / SAVED_MODEL)
    # The frozen network is part of reference cycles that hold several times its size: a conversion needs the memory.
    del frozen
    gc.collect()
    log.info("export: converting")
    save_activation(model, folder / EXPLAIN_FILE)
    started = time.perf_counter()
    served, int8 = folder / MODEL_FILE, folder / "int8.tflite"
    served.write_bytes(convert(folder / SAVED_MODEL, quantize=False))
    converted = time.perf_counter()
    probabilities = _probabilities(served, val, "float32")
    evaluated = time.perf_counter()
    float32 = compare(reference, probabilities, val.labels)
    # If two probabilities are nearly equal, either may be the larger one.
    if float32.agreement < 1 and float(np.abs(reference - probabilities).max()) > MAX_DEVIATION:
        raise RunError(
            f"export: LiteRT's float32 network predicts {float32.different} of {float32.images} images differently "
            "from TensorFlow's; nothing is published"
        )
    threshold = fit_threshold(probabilities, val.labels, confidence)
    plain = Exported("float32", None, float32.accuracy, temperature, threshold)
    if quantize == "none":
        return plain
    rest_s = REPORT_S + len(dataset.test) * (evaluated - converted) / len(val)
    if quantize == "auto" and timer.left_s < SAFETY * (evaluated - started + rest_s):
        log.info("float32 is served: --time-limit leaves no time to try int8")
        return plain
    log.info("export: quantizing")
    int8.write_bytes(convert(folder / SAVED_MODEL, quantize=True))
    speedup = measure_speedup(int8, served, val)
    if quantize == "auto" and speedup <= 1:
        log.info("float32 is served: int8 is %.1f times as fast here", speedup)
        int8.unlink()
        return plain
    probabilities = _probabilities(int8, val, "int8")
    check = compare(reference, probabilities, val.labels)
    if quantize == "int8" or check.passed:
        log.info("int8 is served: %s, %.1f times as fast", check, speedup)
        os.replace(int8, served)
        threshold = fit_threshold(probabilities, val.labels, confidence)
        return Exported("int8", check, check.accuracy, temperature, threshold)
    log.info("float32 is served, not int8: %s, %.1f times as fast", check, speedup)
    int8.unlink()
    return replace(plain, check=check)


def _calibrate(model: Any, dataset: Dataset, features: str | None) -> tuple[Any, float, NDArray[np.float32]]:
    """The frozen network, its temperature, and the probabilities float32 [V,K] of the validation images."""
    from scipy.special import softmax

    val, train = dataset.val, dataset.train
    outputs = _run(model, val, features, "export: outputs of the network")
    logits = _finite(outputs, "the network")[LOGITS]
    temperature = fit_temperature(logits, val.labels)
    ood_score = None
    if features:
        references = Split(train.cache, train.indices[choose_references(train.labels)])
        trained = _run(model, references, features, "export: features of training images")
        ood_score = fit_ood_score(trained[FEATURES], outputs[FEATURES])
    frozen = freeze(model, temperature, ood_score, features)
    return frozen, temperature, softmax(logits / np.float32(temperature), axis=1)


def _run(model: Any, split: Split, features: str | None, what: str) -> Outputs:
    """`logits` [N,K] of a split's images and, where `features` names a layer, its output [N,F]."""
    import tensorflow as tf

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)
    forward = tf.function(with_features(model, features), input_signature=[signature])

    def predict(images: NDArray[np.uint8]) -> Outputs:
        return dict(zip((LOGITS, FEATURES), (output.numpy() for output in forward(tf.constant(images))), strict=False))

    return predict_batches(predict, split, what)


def _probabilities(file: Path, val: Split, quantization: str) -> NDArray[np.float32]:
    """Probabilities float32 [V,K] of the validation images. Raises DivergedError where an output is not finite."""
    outputs = predict_batches(LiteRTEngine(file).predict, val, f"export: {quantization} predictions")
    return _finite(outputs, f"the {quantization} LiteRT network")[PROBABILITIES]


def _finite(outputs: Outputs, what: str) -> Outputs:
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise DivergedError(f"export: {what} has outputs that are not finite; nothing is published")
    return outputs
