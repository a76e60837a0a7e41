"""Predictions as a client gets them (the most probable class, its probability, `known`), and how good they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.reporting.metrics import calibration_bins, calibration_error


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions for N images."""

    class_names: NDArray[np.str_]  # [N], of the most probable class
    probabilities: NDArray[np.float64]  # [N], 0..1, of that class
    known: NDArray[np.bool_]  # [N]

    def where(self, selected: NDArray[np.bool_]) -> Predictions:
        """The predictions that are `selected` [N]."""
        return Predictions(self.class_names[selected], self.probabilities[selected], self.known[selected])


@dataclass(frozen=True)
class PredictionMetrics:
    """Metrics of the predictions for N images."""

    correct: int  # of N
    accuracy: float  # 0..1
    calibration_error: float  # 0..1, expected calibration error
    known_share: float  # of N, 0..1
    known_accuracy: float | None  # of the known predictions, 0..1; None: there are none


def measure_predictions(predictions: Predictions, truth: NDArray[np.str_]) -> PredictionMetrics:
    """Compare predictions with the class names `truth` [N], N ≥ 1."""
    correct, known = predictions.class_names == truth, predictions.known
    return PredictionMetrics(
        correct=int(correct.sum()),
        accuracy=float(correct.mean()),
        calibration_error=calibration_error(calibration_bins(predictions.probabilities, correct)),
        known_share=float(known.mean()),
        known_accuracy=float(correct[known].mean()) if known.any() else None,
    )
