"""Export: calibrate and freeze the trained network, quantize it, and choose the file that is served."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
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
from trainer.export.freeze import Quantization, convert, freeze, save_activation, save_frozen, with_features
from trainer.export.quantization import QuantizationCheck, compare, measure_speedup
from trainer.features.ood import choose_references, fit_ood_score
from trainer.files import delete_folder
from trainer.training.settings import FitSettings
from trainer.training.timer import CALIBRATION_IMAGES, CALIBRATION_PASSES, REPORT_S, SAFETY, Timer

if TYPE_CHECKING:
    from trainer.config import FitConfig
    from trainer.data import Dataset

log = logging.getLogger("trainer")

# `--quantize` → the quantized files that are tried.
QUANTIZED: dict[str, tuple[Quantization, ...]] = {
    "auto": ("static-int8", "int8"),
    "none": (),
    "int8": ("int8",),
    "static-int8": ("static-int8",),
}
MAX_DEVIATION = 1e-3  # between a probability of LiteRT's float32 network and TensorFlow's
LOGITS, FEATURES = "logits", "features"


@dataclass(frozen=True, eq=False)
class Exported:
    """The network in `model.tflite`."""

    quantization: Quantization
    check: QuantizationCheck | None  # None: no quantized file was compared, as none would have been served
    val_accuracy: float
    val_probabilities: NDArray[np.float32]  # [V,K]
    temperature: float
    threshold: float


def export(model: Any, dataset: Dataset, folder: Path, settings: FitSettings, timer: Timer) -> Exported:
    """Write `saved_model/`, `model.tflite` and, where the network pools its features, `explain.tflite` of a float32
    `model` into `folder`, which is replaced.

    The first two map `images` uint8 [N,H,W,C] to `probabilities` float32 [N,K], calibrated on validation, and for a
    pretrained network to the out-of-distribution score `novelty` float32 [N]. `--quantize auto` serves the fastest file
    on this machine that is as good as float32 (`QuantizationCheck.passed`), and quantizes if the `timer` has time left;
    its other values name the file. Predictions above the threshold reach the precision `--confidence` on validation.
    Raises DivergedError if an output is not finite, RunError if LiteRT's float32 network predicts differently.
    """
    val, quantize, confidence = dataset.val, settings.config.quantize, settings.config.confidence
    log.info("export: freezing the network; its files are compared on %d validation images", len(val))
    delete_folder(folder)
    folder.mkdir(parents=True)
    frozen, temperature, reference = _calibrate(model, dataset, settings.architecture.features)
    save_frozen(frozen, folder / SAVED_MODEL)
    # The frozen network is part of reference cycles that hold several times its size: a conversion needs the memory.
    del frozen
    gc.collect()
    log.info("export: converting")
    save_activation(model, folder / EXPLAIN_FILE)
    started = time.perf_counter()
    served = folder / MODEL_FILE
    served.write_bytes(convert(folder / SAVED_MODEL, "float32"))
    converted = time.perf_counter()
    outputs = _outputs(served, val, "float32")
    evaluated = time.perf_counter()
    float32 = compare({PROBABILITIES: reference}, {PROBABILITIES: outputs[PROBABILITIES]}, val.labels)
    # Of two probabilities that are all but equal, either may be the larger one.
    if float32.agreement < 1 and float(np.abs(reference - outputs[PROBABILITIES]).max()) > MAX_DEVIATION:
        raise RunError(
            f"export: LiteRT's float32 network predicts {float32.different} of {float32.images} images differently "
            "from TensorFlow's; nothing is published"
        )
    threshold = fit_threshold(outputs[PROBABILITIES], val.labels, confidence)
    plain = Exported("float32", None, float32.accuracy, outputs[PROBABILITIES], temperature, threshold)
    image_s = (evaluated - converted) / len(val)
    quantizing_s = 2 * (evaluated - started) + CALIBRATION_PASSES * CALIBRATION_IMAGES * image_s
    if quantize == "auto" and timer.left_s < SAFETY * (quantizing_s + REPORT_S + len(dataset.test) * image_s):
        log.info("float32 is served: --time-limit leaves no time to try int8")
        return plain
    return _quantize(plain, outputs, dataset, folder, settings.config)


def _quantize(plain: Exported, reference: Outputs, dataset: Dataset, folder: Path, config: FitConfig) -> Exported:
    """Replace the float32 `model.tflite` in `folder`, which is `plain`, by a quantized file.

    By the one that `--quantize` names, or for `auto` the fastest of those that are faster and as good on validation.
    `reference`: outputs of the float32 file for the validation images.
    """
    served, val, automatic = folder / MODEL_FILE, dataset.val, config.quantize == "auto"
    speedups: dict[Quantization, float] = {}
    failed = None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for kind in QUANTIZED[config.quantize]:
            log.info("export: quantizing to %s", kind)
            images = None
            if kind == "static-int8":
                images = dataset.train.read(evenly_spaced(dataset.train, CALIBRATION_IMAGES))
            try:
                Path(scratch, kind).write_bytes(convert(folder / SAVED_MODEL, kind, images))
                speedups[kind] = measure_speedup(Path(scratch, kind), served, val)
            except (RuntimeError, ValueError) as error:  # an operation that the converter or LiteRT does not have
                reason = str(error).strip().partition("\n")[0]
                if not automatic:
                    raise RunError(f"export: the network cannot be quantized to {kind}: {reason}") from error
                log.warning("%s is not served: the network cannot be quantized so: %s", kind, reason)
        for kind, speedup in sorted(speedups.items(), key=lambda item: -item[1]):
            if automatic and speedup <= 1:
                log.info("%s is not served: it is %.1f times as fast as float32 here", kind, speedup)
                continue
            outputs = _outputs(Path(scratch, kind), val, kind)
            check = compare(reference, outputs, val.labels)
            if check.passed or not automatic:
                log.info("%s is served: %s, %.1f times as fast", kind, check, speedup)
                os.replace(Path(scratch, kind), served)
                threshold = fit_threshold(outputs[PROBABILITIES], val.labels, config.confidence)
                return Exported(kind, check, check.accuracy, outputs[PROBABILITIES], plain.temperature, threshold)
            log.info("%s is not served: %s, %.1f times as fast", kind, check, speedup)
            failed = failed or check
    return replace(plain, check=failed)


def evenly_spaced(split: Split, count: int) -> NDArray[np.int64]:
    """Positions of at most `count` images of a split, at equal distances."""
    return np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64))


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


def _outputs(file: Path, val: Split, quantization: str) -> Outputs:
    """Outputs of a LiteRT file for the validation images. Raises DivergedError where one is not finite."""
    outputs = predict_batches(LiteRTEngine(file).predict, val, f"export: {quantization} predictions")
    return _finite(outputs, f"the {quantization} LiteRT network")


def _finite(outputs: Outputs, what: str) -> Outputs:
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise DivergedError(f"export: {what} has outputs that are not finite; nothing is published")
    return outputs
