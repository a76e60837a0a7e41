"""Quantization check: accuracy and speed of int8 weights compared with float32. `export` decides which are served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES, LiteRTEngine, Outputs
from trainer.artifact.prediction import MAX_OOD_SCORE
from trainer.data import Split
from trainer.features.ood import REFUSED_SHARE
from trainer.reporting.latency import median_seconds

MIN_AGREEMENT = 0.98  # share of images for which int8 and float32 predict the same class
MAX_ACCURACY_LOSS = 0.005  # half a point; or one image, if that is more
MAX_REFUSAL_CHANGE = REFUSED_SHARE * 2 / 3  # by the OOD score; or one image, if that is more
TIMED_BATCHES = (1, 8)
TIMED_RUNS = 7


@dataclass(frozen=True)
class QuantizationCheck:
    """Comparison of a quantized network with the float32 one on the validation images."""

    agreement: float  # share of images with the same predicted class
    reference_accuracy: float
    accuracy: float
    images: int
    more_refused: float = 0.0  # share of images whose OOD score is too high to be known, less that with float32

    @property
    def passed(self) -> bool:
        """Whether the quantized network predicts as well as the float32 one; its speed is not checked here."""
        one, rounding = 1 / self.images, 1e-9
        return (
            self.agreement >= MIN_AGREEMENT
            and self.reference_accuracy - self.accuracy <= max(MAX_ACCURACY_LOSS, one) + rounding
            and abs(self.more_refused) <= max(MAX_REFUSAL_CHANGE, one) + rounding
        )

    @property
    def different(self) -> int:
        """Number of images with another predicted class."""
        return round((1 - self.agreement) * self.images)

    def __str__(self) -> str:
        """Counts of images, because percentages of a few images look alike."""
        correct, before = (round(share * self.images) for share in (self.accuracy, self.reference_accuracy))
        predictions = "prediction differs" if self.different == 1 else "predictions differ"
        return f"{self.different} of {self.images} {predictions}; {correct} are correct, with float32 {before}"


def compare(reference: Outputs, quantized: Outputs, labels: NDArray[np.int32]) -> QuantizationCheck:
    """Compare the outputs of two networks, with or without the OOD score, for images with `labels` int32 [N]."""
    expected, predicted = (outputs[PROBABILITIES].argmax(1) for outputs in (reference, quantized))
    refused = [
        float((outputs.get(OOD_SCORE, np.zeros(1)) >= MAX_OOD_SCORE).mean()) for outputs in (reference, quantized)
    ]
    return QuantizationCheck(
        agreement=float((expected == predicted).mean()),
        reference_accuracy=float((expected == labels).mean()),
        accuracy=float((predicted == labels).mean()),
        images=len(labels),
        more_refused=refused[1] - refused[0],
    )


def measure_speedup(file: Path, reference: Path, split: Split) -> float:
    """Speed of the network in `file` relative to that in `reference`, on this machine.

    The smallest ratio over TIMED_BATCHES; a ratio below 1 ends the measurement, as a larger batch could take very long.
    The networks run in turn; medians are compared.
    """
    engines = [LiteRTEngine(file), LiteRTEngine(reference)]
    ratios = []
    for size in TIMED_BATCHES:
        images = split.read(np.arange(size) % len(split))
        quantized_s, reference_s = median_seconds([(engine, images) for engine in engines], TIMED_RUNS)
        ratios.append(reference_s / quantized_s)
        if ratios[-1] < 1:
            break
    return min(ratios)
