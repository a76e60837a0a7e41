"""Export: calibrate and freeze the trained network, quantise it, and let a gate decide which file is served."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, LiteRTEngine, Outputs
from trainer.artifact.spec import EXPLAIN_FILE, MODEL_FILE, SAVED_MODEL
from trainer.data import Split
from trainer.data.progress import track
from trainer.errors import DivergedError, RunError
from trainer.evaluate import predict_split
from trainer.export.calibration import fit_temperature, fit_threshold
from trainer.export.freeze import convert, freeze, save_activation, save_frozen, with_features
from trainer.features.ood import choose_references, fit_novelty
from trainer.machine import evaluation_batch
from trainer.training.timer import REPORT_S, SAFETY, Clock

if TYPE_CHECKING:
    from trainer.data import Dataset

log = logging.getLogger("trainer")

MIN_AGREEMENT = 0.98  # of the top-1 answers, int8 against float32
MAX_ACCURACY_LOSS = 0.005  # half a point; or one image, if that is more
TIMED_BATCHES = (1, 8)
TIMED_RUNS = 7
SAME = 1e-3  # by how much a probability of LiteRT's float32 network may differ from TensorFlow's


@dataclass(frozen=True)
class Gate:
    """How the int8 network compares with float32 on the validation images."""

    agreement: float  # share of equal top-1 answers
    reference_accuracy: float
    accuracy: float
    images: int

    @property
    def good(self) -> bool:
        """As good as float32."""
        allowed = max(MAX_ACCURACY_LOSS, 1 / self.images)
        return self.agreement >= MIN_AGREEMENT and self.reference_accuracy - self.accuracy <= allowed + 1e-9

    @property
    def different(self) -> int:
        """How many images are answered differently."""
        return round((1 - self.agreement) * self.images)

    def __str__(self) -> str:
        """In images, as percentages of few of them look alike."""
        right, before = (round(share * self.images) for share in (self.accuracy, self.reference_accuracy))
        answers = "answer differs" if self.different == 1 else "answers differ"
        return f"{self.different} of {self.images} {answers}; right are {right}, with float32 {before}"


@dataclass(frozen=True)
class Exported:
    """What `model.tflite` is, and why."""

    quantization: str  # int8 | float32
    gate: Gate | None  # None: int8 was not compared, as it would not have been served
    val_accuracy: float  # of model.tflite
    temperature: float
    threshold: float


def export(
    model: Any,
    dataset: Dataset,
    folder: Path,
    quantize: str = "auto",
    *,
    features: str | None = None,
    confidence: float = 0.95,
    clock: Clock | None = None,
) -> Exported:
    """Write `saved_model/` and `model.tflite` of a float32 `model` into `folder`, which is replaced, and where it pools
    its features `explain.tflite`.

    The first two take `images` uint8 [N,H,W,C] and give `probabilities` float32 [N,K], calibrated on validation, and
    with a layer `features` their `novelty` float32 [N]. With `quantize` auto, int8 is served where it is faster here
    and as good as float32, and tried where the `clock` leaves time for it besides the test and the report; `none` and
    `int8` decide by themselves. `confidence` is the share of right answers from the threshold on.
    Raises RunError where any output of either is not finite, or LiteRT's float32 file answers differently.
    """
    val = dataset.val
    log.info("export: freezing the network; %d validation images tell whether the files answer alike", len(val))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frozen, temperature, reference = _calibrate(model, dataset, features)
    save_frozen(frozen, folder / SAVED_MODEL)
    # It is part of reference cycles that hold several times the network's size: a conversion needs the memory.
    del frozen
    gc.collect()
    log.info("export: converting")
    save_activation(model, folder / EXPLAIN_FILE)
    started = time.perf_counter()
    served, int8 = folder / MODEL_FILE, folder / "int8.tflite"
    served.write_bytes(convert(folder / SAVED_MODEL, quantize=False))
    converted = time.perf_counter()
    answers = _answers(served, val, "float32")
    answered = time.perf_counter()
    float32 = compare(reference, answers, val.labels)
    # Of two answers that are all but equal, either may be the first.
    if float32.agreement < 1 and float(np.abs(reference - answers).max()) > SAME:
        raise RunError(
            f"export: LiteRT's float32 network answers {float32.different} of {float32.images} images differently from "
            "TensorFlow's; nothing is published"
        )
    threshold = fit_threshold(answers, val.labels, confidence)
    plain = Exported("float32", None, float32.accuracy, temperature, threshold)
    if quantize == "none":
        return plain
    rest_s = REPORT_S + len(dataset.test) * (answered - converted) / len(val)
    if quantize == "auto" and clock and clock.left_s < SAFETY * (answered - started + rest_s):
        log.info("float32 is served: --time-limit leaves no time to try int8")
        return plain
    log.info("export: quantising")
    int8.write_bytes(convert(folder / SAVED_MODEL, quantize=True))
    speedup = compare_speed(int8, served, val)
    if quantize == "auto" and speedup <= 1:
        log.info("float32 is served: int8 is %.1f times as fast here", speedup)
        int8.unlink()
        return plain
    answers = _answers(int8, val, "int8")
    gate = compare(reference, answers, val.labels)
    words = f"{gate}, {speedup:.1f} times as fast"
    if quantize == "int8" or gate.good:
        log.info("int8 is served: %s", words)
        os.replace(int8, served)
        return Exported("int8", gate, gate.accuracy, temperature, fit_threshold(answers, val.labels, confidence))
    log.info("float32 is served, not int8: %s", words)
    int8.unlink()
    return replace(plain, gate=gate)


def _calibrate(model: Any, dataset: Dataset, features: str | None) -> tuple[Any, float, NDArray[np.float32]]:
    """The frozen network, its temperature, and the probabilities float32 [V,K] of the validation images."""
    from scipy.special import softmax

    val, train = dataset.val, dataset.train
    logits, *known = _ask(model, val, features, "export: the network's answers")
    _finite({PROBABILITIES: logits}, "the network")
    temperature = fit_temperature(logits, val.labels)
    novelty = None
    if known:
        references = Split(train.cache, train.indices[choose_references(train.labels)])
        _, learnt = _ask(model, references, features, "export: what it learnt from")
        novelty = fit_novelty(learnt, known[0])
    frozen = freeze(model, temperature, novelty, features)
    return frozen, temperature, softmax(logits / np.float32(temperature), axis=1)


def _ask(model: Any, split: Split, features: str | None, what: str) -> list[NDArray[np.float32]]:
    """The logits [N,K] of a split's images and, where it names a layer, its output [N,F]."""
    import tensorflow as tf

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)
    network = with_features(model, features)
    forward = tf.function(network, input_signature=[signature])
    height, width, _ = split.shape
    tracked = track(split.batches(evaluation_batch(height, width)), len, total=len(split), what=what, bar=None)
    parts = [[one.numpy() for one in forward(tf.constant(images))] for images in tracked]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def compare(reference: NDArray[np.float32], quantized: NDArray[np.float32], labels: NDArray[np.int32]) -> Gate:
    """Compare two sets of probabilities float32 [N,K] for images with `labels` [N]."""
    expected, got = reference.argmax(1), quantized.argmax(1)
    return Gate(
        agreement=float((expected == got).mean()),
        reference_accuracy=float((expected == labels).mean()),
        accuracy=float((got == labels).mean()),
        images=len(labels),
    )


def compare_speed(file: Path, reference: Path, split: Split) -> float:
    """How many times as fast as `reference` the network in `file` is here; the smaller ratio of TIMED_BATCHES, or the
    first at which it is slower.

    Medians of runs in turn, so that a machine whose speed drifts favours neither.
    """
    engines = [LiteRTEngine(file), LiteRTEngine(reference)]
    ratios = []
    for size in TIMED_BATCHES:
        images = split.read(np.arange(size) % len(split))
        seconds: list[list[float]] = [[], []]
        for run in range(TIMED_RUNS + 1):
            for engine, times in zip(engines, seconds, strict=True):
                start = time.perf_counter()
                engine.predict(images)
                if run:  # the first sets the size up
                    times.append(time.perf_counter() - start)
        ratios.append(statistics.median(seconds[1]) / statistics.median(seconds[0]))
        if ratios[-1] < 1:  # a larger batch could take very long
            break
    return min(ratios)


def _answers(file: Path, val: Split, quantization: str) -> NDArray[np.float32]:
    """Probabilities float32 [V,K] of the validation images. Raises DivergedError where an output is not finite."""
    outputs = predict_split(LiteRTEngine(file), val, f"export: {quantization} answers")
    return _finite(outputs, f"the {quantization} LiteRT network")[PROBABILITIES]


def _finite(outputs: Outputs, what: str) -> Outputs:
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise DivergedError(f"export: {what} gives answers that are not finite; nothing is published")
    return outputs
