from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from trainer.export.calibration import fit_temperature, fit_threshold
from trainer.reporting.metrics import evaluate, measure_trust


def test_the_temperature_that_made_logits_too_sure_is_found() -> None:
    generator = np.random.default_rng(0)
    honest = 2 * generator.standard_normal((20_000, 5)).astype(np.float32)
    chances = softmax(honest, axis=1)
    labels = (chances.cumsum(1) > generator.random((20_000, 1))).argmax(1).astype(np.int32)
    for temperature in (0.5, 1.0, 3.0):
        assert fit_temperature(temperature * honest, labels) == pytest.approx(temperature, rel=0.05)
    calibrated = softmax(honest, axis=1)
    trust = measure_trust(labels, {"probabilities": calibrated}, 3.0, 0.0)
    assert evaluate(labels, calibrated).calibration_error < 0.015
    # What it was before: the answers of three times the logits.
    assert trust.uncalibrated_error == pytest.approx(
        evaluate(labels, softmax(3 * honest, axis=1)).calibration_error, abs=1e-3
    )
    assert trust.known_share == 1
    assert trust.known_accuracy == pytest.approx((honest.argmax(1) == labels).mean())


def test_a_temperature_that_does_not_help_on_validation_is_not_applied() -> None:
    labels = (np.arange(40) % 2).astype(np.int32)
    sure = 8 * np.eye(2, dtype=np.float32)[labels]  # all right, and surer than 40 images can confirm
    assert fit_temperature(sure, labels) == 1.0
    # Right in 9 of 10 with 90 % and in 6 of 10 with 62 %, to the last digit.
    margin = np.repeat([np.log(9), np.log(0.62 / 0.38)], 50).astype(np.float32)
    calibrated = np.stack([margin, np.zeros(100, np.float32)], 1)
    outcomes = np.array([0] * 45 + [1] * 5 + [0] * 31 + [1] * 19, np.int32)
    assert evaluate(outcomes, softmax(calibrated, axis=1)).calibration_error < 1e-6
    assert fit_temperature(calibrated, outcomes) == 1.0
    assert fit_temperature(5 * calibrated, outcomes) == pytest.approx(5, rel=0.1)


def test_images_that_are_all_named_right_do_not_ask_for_certainty() -> None:
    logits = 4 * np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    labels = (np.arange(100) % 10).astype(np.int32)
    probability = softmax(logits / fit_temperature(logits, labels), axis=1).max(1)
    assert probability == pytest.approx(1 - 0.9 / 102, abs=1e-3)


def answers(*each: tuple[float, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of three classes, and the truth, for answers of a probability that are right or not."""
    probabilities = np.array([[one, (1 - one) * 0.6, (1 - one) * 0.4] for one, _ in each], np.float32)
    return probabilities, np.array([0 if right else 1 for _, right in each], np.int32)


@pytest.mark.parametrize(
    ("confidence", "threshold"),
    [(0.5, 0.4), (0.75, 0.6), (0.8, 0.7), (1.0, 1.0), (0.0, 0.4)],
)
def test_the_threshold_is_the_lowest_that_holds_what_was_asked(confidence: float, threshold: float) -> None:
    probabilities, labels = answers(
        (0.99, False),
        (0.9, True),
        (0.8, True),
        (0.75, True),
        (0.7, True),
        (0.6, False),
        (0.6, True),
        (0.6, True),
        (0.4, False),
    )
    assert fit_threshold(probabilities, labels, confidence) == threshold


def test_a_threshold_that_is_reached_is_below_one() -> None:
    """1 says that no probability is enough."""
    assert fit_threshold(*answers((1.0, True), (1.0, True), (0.5, False)), 0.95) == 0.999999
    assert fit_threshold(*answers((1.0, False), (0.5, False)), 0.95) == 1.0


def test_equal_probabilities_stand_or_fall_together() -> None:
    probabilities, labels = answers((0.9, True), (0.6, True), (0.6, False), (0.6, False))
    assert fit_threshold(probabilities, labels, 0.6) == 0.9
