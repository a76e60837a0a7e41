"""Export: freeze the trained network, quantise it, and let a gate decide which file is served."""

from __future__ import annotations

import gc
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import LiteRTEngine
from trainer.artifact.spec import MODEL_FILE, SAVED_MODEL
from trainer.config import RunError
from trainer.training.evaluate import BATCH, predict_split

if TYPE_CHECKING:
    from trainer.data import Split

log = logging.getLogger("trainer")

MIN_AGREEMENT = 0.999  # of the top-1 answers, int8 against float32
MAX_ACCURACY_LOSS = 0.001  # 0.1 point


@dataclass(frozen=True)
class Gate:
    """How a LiteRT network compares with TensorFlow's in float32 on the validation set."""

    agreement: float  # share of equal top-1 answers
    reference_accuracy: float
    accuracy: float

    @property
    def passed(self) -> bool:
        return (
            self.agreement >= MIN_AGREEMENT and abs(self.reference_accuracy - self.accuracy) <= MAX_ACCURACY_LOSS + 1e-9
        )


@dataclass(frozen=True)
class Exported:
    """What `model.tflite` is, and why."""

    quantization: str  # int8, or float32 where the gate failed
    gate: Gate
    val_accuracy: float  # of model.tflite


def export(model: Any, val: Split, folder: Path) -> Exported:
    """Write `saved_model/` and `model.tflite` of a float32 `model` into `folder`, which is replaced.

    Both take `images` uint8 [N,H,W,C] and give `probabilities` float32 [N,K].
    Raises RunError where any output of either is not finite, or LiteRT's float32 file answers differently.
    """
    log.info("export: quantising to int8, and comparing with float32 on %d validation images", len(val))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frozen = freeze(model)
    save_frozen(frozen, folder / SAVED_MODEL)
    reference = _finite(_run_frozen(frozen, val), "the frozen network")
    # It is part of reference cycles that hold several times the network's size: a conversion needs the memory.
    del frozen
    gc.collect()
    served = folder / MODEL_FILE
    served.write_bytes(convert(folder / SAVED_MODEL, quantize=True))
    gate = compare(reference, _finite(predict_split(LiteRTEngine(served), val), "the int8 network"), val.labels)
    if gate.passed:
        log.info("int8 is served: %.2f%% of its answers are those of float32", 100 * gate.agreement)
        return Exported("int8", gate, gate.accuracy)
    log.warning(
        "float32 is served: only %.2f%% of the int8 answers are those of float32 (at least %.1f%% needed), "
        "validation accuracy %.2f%% instead of %.2f%%",
        100 * gate.agreement,
        100 * MIN_AGREEMENT,
        100 * gate.accuracy,
        100 * gate.reference_accuracy,
    )
    served.write_bytes(convert(folder / SAVED_MODEL, quantize=False))
    converted = compare(
        reference, _finite(predict_split(LiteRTEngine(served), val), "the float32 LiteRT network"), val.labels
    )
    if not converted.passed:
        raise RunError(
            f"export: LiteRT's float32 network gives {100 * converted.agreement:.2f} % of TensorFlow's answers; "
            "nothing is published"
        )
    return Exported("float32", gate, converted.accuracy)


def freeze(model: Any) -> Any:
    """The network as a concrete function without variables: uint8 [N,H,W,C] → probabilities float32 [N,K]."""
    import tensorflow as tf

    # Private, and used by everybody: TensorFlow has no public way to make constants of variables.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    answer = tf.function(lambda images: tf.nn.softmax(model(images, training=False)))
    return convert_variables_to_constants_v2(answer.get_concrete_function(signature))


def save_frozen(frozen: Any, folder: Path) -> None:
    """A SavedModel without variables; signature `serving_default`: `images` → `probabilities`."""
    import tensorflow as tf

    spec = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    module = tf.Module()
    module.answer = tf.function(lambda images: {"probabilities": frozen(images)[0]}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})


def convert(saved_model: Path, *, quantize: bool) -> bytes:
    """The LiteRT file of what `save_frozen` wrote; `quantize` stores the weights in int8 (dynamic range: activations
    at run time). While it runs it takes about 16 times the memory of the float32 weights."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converted = bytes(converter.convert())
    del converter
    gc.collect()  # cycles again
    return converted


def compare(reference: NDArray[np.float32], quantized: NDArray[np.float32], labels: NDArray[np.int32]) -> Gate:
    """Compare two sets of probabilities float32 [N,K] for images with `labels` [N]."""
    expected, got = reference.argmax(1), quantized.argmax(1)
    return Gate(
        agreement=float((expected == got).mean()),
        reference_accuracy=float((expected == labels).mean()),
        accuracy=float((got == labels).mean()),
    )


def _run_frozen(frozen: Any, split: Split) -> NDArray[np.float32]:
    import tensorflow as tf

    batches = [frozen(tf.constant(images))[0].numpy() for images in split.batches(BATCH)]
    return np.concatenate(batches)


def _finite(probabilities: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    if not np.isfinite(probabilities).all():
        raise RunError(f"export: {what} gives answers that are not finite; nothing is published")
    return probabilities
