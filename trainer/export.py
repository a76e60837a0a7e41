"""Export: freeze the trained network, quantise it, and let a gate decide which file is served."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import RunError

if TYPE_CHECKING:
    from trainer.data import Split

log = logging.getLogger("trainer")

MIN_AGREEMENT = 0.999  # of the top-1 answers, int8 against float32
MAX_ACCURACY_LOSS = 0.001  # 0.1 point
BATCH = 256


@dataclass(frozen=True)
class Gate:
    """How the quantised network compares with float32 on the validation set."""

    agreement: float  # share of equal top-1 answers
    accuracy_float32: float
    accuracy_int8: float

    @property
    def passed(self) -> bool:
        return (
            self.agreement >= MIN_AGREEMENT
            and abs(self.accuracy_float32 - self.accuracy_int8) <= MAX_ACCURACY_LOSS + 1e-9
        )


def export(model: Any, val: Split, folder: Path) -> tuple[str, Gate]:
    """Write `saved_model/` and `model.tflite` of a float32 `model` into `folder`, which is replaced.

    Both take `images` uint8 [N,H,W,C] and give `probabilities` float32 [N,K]. Returns the quantization of
    `model.tflite` (`int8`, or `float32` where the gate failed) and the gate's figures.
    Raises RunError where any output of either is not finite, or LiteRT's float32 file answers differently.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frozen = freeze(model)
    save_frozen(frozen, folder / "saved_model")
    reference = _finite(_run_frozen(frozen, val), "the frozen network")
    served = folder / "model.tflite"
    served.write_bytes(convert(frozen, quantize=True))
    gate = compare(reference, _finite(_run_litert(served, val), "the int8 network"), val.labels)
    if gate.passed:
        log.info("int8 is served: %.2f %% of its answers are those of float32", 100 * gate.agreement)
        return "int8", gate
    log.warning(
        "float32 is served: only %.2f %% of the int8 answers are those of float32 (at least %.1f %% needed), "
        "validation accuracy %.2f %% instead of %.2f %%",
        100 * gate.agreement,
        100 * MIN_AGREEMENT,
        100 * gate.accuracy_int8,
        100 * gate.accuracy_float32,
    )
    served.write_bytes(convert(frozen, quantize=False))
    converted = compare(reference, _finite(_run_litert(served, val), "the float32 LiteRT network"), val.labels)
    if not converted.passed:
        raise RunError(
            f"export: LiteRT's float32 network gives {100 * converted.agreement:.2f} % of TensorFlow's answers; "
            "nothing is published"
        )
    return "float32", gate


def freeze(model: Any) -> Any:
    """The network as a concrete function without variables: uint8 [N,H,W,C] → probabilities float32 [N,K]."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    answer = tf.function(lambda images: tf.nn.softmax(model(images, training=False)))
    return convert_variables_to_constants_v2(answer.get_concrete_function(signature))


def save_frozen(frozen: Any, folder: Path) -> None:
    """A SavedModel without variables; signature `serving_default`: `images` → `probabilities`."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    module.answer = tf.function(lambda images: {"probabilities": frozen(images)[0]}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})


def convert(frozen: Any, *, quantize: bool) -> bytes:
    """The LiteRT file; `quantize` stores the weights in int8 (dynamic range: activations at run time)."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    answer = tf.function(lambda images: {"probabilities": frozen(images)[0]}, input_signature=[spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], module)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def compare(reference: NDArray[np.float32], quantized: NDArray[np.float32], labels: NDArray[np.int32]) -> Gate:
    """Compare two sets of probabilities float32 [N,K] for images with `labels` [N]."""
    expected, got = reference.argmax(1), quantized.argmax(1)
    return Gate(
        agreement=float((expected == got).mean()),
        accuracy_float32=float((expected == labels).mean()),
        accuracy_int8=float((got == labels).mean()),
    )


def _run_frozen(frozen: Any, split: Split) -> NDArray[np.float32]:
    import tensorflow as tf

    batches = [frozen(tf.constant(images))[0].numpy() for images in split.batches(BATCH)]
    return np.concatenate(batches)


def _run_litert(file: Path, split: Split) -> NDArray[np.float32]:
    from trainer.serving.engine import LiteRTEngine

    engine = LiteRTEngine(file)
    return np.concatenate([engine.predict(images) for images in split.batches(BATCH)])


def _finite(probabilities: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    if not np.isfinite(probabilities).all():
        raise RunError(f"export: {what} gives answers that are not finite; nothing is published")
    return probabilities
