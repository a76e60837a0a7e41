from __future__ import annotations

import numpy as np
import pytest

from trainer.reporting.predictions import Predictions, measure_predictions

TRUTH = np.array(["cat", "cat", "dog", "dog"])
PREDICTED = Predictions(
    class_names=np.array(["cat", "dog", "dog", "cat"]),
    probabilities=np.array([0.9, 0.9, 0.5, 0.5]),
    known=np.array([True, True, True, False]),
)


def test_metrics_of_predictions() -> None:
    metrics = measure_predictions(PREDICTED, TRUTH)
    assert (metrics.correct, metrics.accuracy, metrics.known_share) == (2, 0.5, 0.75)
    assert metrics.known_accuracy == pytest.approx(2 / 3)
    # Half of the images in the bin of 0.9, which is right for half of them: 0.4 off; the others are not off.
    assert metrics.calibration_error == pytest.approx(0.2)


def test_some_of_the_predictions() -> None:
    metrics = measure_predictions(PREDICTED.where(np.arange(4) == 3), TRUTH[3:])
    assert (metrics.correct, metrics.accuracy, metrics.known_accuracy) == (0, 0.0, None)
