from __future__ import annotations

import json

import numpy as np
import pytest

from trainer.reporting import metrics

LABELS = np.array([0, 0, 1, 1, 2], np.int32)
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.6, 0.3, 0.1]], np.float32
)


def test_evaluate() -> None:
    evaluation = metrics.evaluate(LABELS, PROBABILITIES)
    assert evaluation.accuracy == pytest.approx(3 / 5)
    assert evaluation.loss == pytest.approx(-np.log([0.9, 0.2, 0.7, 1.0, 0.1]).mean(), rel=1e-6)
    assert evaluation.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    np.testing.assert_allclose(evaluation.precision, [1 / 2, 2 / 3, 0])  # 0 for a class never predicted
    np.testing.assert_allclose(evaluation.recall, [1 / 2, 1, 0])
    assert evaluation.bin_counts.sum() == 5


def test_class_without_examples_has_recall_0() -> None:
    evaluation = metrics.evaluate(LABELS[:4], PROBABILITIES[:4])
    assert evaluation.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(evaluation.recall, [1 / 2, 1, 0])


def test_guess_accuracy_and_interval() -> None:
    evaluation = metrics.evaluate(LABELS, PROBABILITIES)
    assert evaluation.images == 5
    assert evaluation.guess_accuracy == pytest.approx(2 / 5)
    # By Wilson's formula, with n = 5, p = 0.6 and z = 1.96.
    assert evaluation.accuracy_interval == pytest.approx((0.2307, 0.8824), abs=1e-4)


@pytest.mark.parametrize(
    ("correct", "images", "guess", "may_be", "is_guessing"),
    [
        (8, 8, 0.75, True, False),  # 68 to 100 %: neither is excluded, guessing with 75 % nor half of its mistakes
        (4, 8, 0.75, True, True),  # 22 to 78 %
        (4, 8, 0.5, True, False),  # 22 to 78 %
        (50, 100, 0.5, True, True),  # 40 to 60 %, and 75 % is better than that
        (62, 100, 0.5, False, False),  # 52 to 71 %
    ],
)
def test_guessing_is_told_from_too_few_images(
    correct: int, images: int, guess: float, may_be: bool, is_guessing: bool
) -> None:
    interval = metrics.accuracy_interval(correct / images, images)
    assert metrics.may_be_guessing(interval, guess) == may_be
    assert metrics.is_guessing(interval, guess) == is_guessing


def test_calibration_error_by_hand() -> None:
    # Ten predictions with a probability of 95 %, eight of them correct.
    probabilities = np.tile(np.array([[0.95, 0.05]], np.float32), (10, 1))
    evaluation = metrics.evaluate(np.array([0] * 8 + [1] * 2, np.int32), probabilities)
    assert evaluation.calibration_error == pytest.approx(0.15, abs=1e-6)
    perfect = metrics.evaluate(np.zeros(4, np.int32), np.tile(np.array([[1.0, 0.0]], np.float32), (4, 1)))
    assert perfect.calibration_error == 0


def test_probability_0_gives_a_finite_loss() -> None:
    evaluation = metrics.evaluate(np.array([1], np.int32), np.array([[1.0, 0.0]], np.float32))
    assert np.isfinite(evaluation.loss)
    assert evaluation.loss > 80


def test_probabilities_that_are_not_finite_show_in_the_loss() -> None:
    evaluation = metrics.evaluate(np.array([1], np.int32), np.array([[np.nan, np.nan]], np.float32))
    assert not np.isfinite(evaluation.loss)


def test_most_confident_mistakes() -> None:
    assert metrics.most_confident_mistakes(LABELS, PROBABILITIES, 5).tolist() == [1, 4]
    assert metrics.most_confident_mistakes(LABELS, PROBABILITIES, 1).tolist() == [1]


def test_to_dict_is_plain_json() -> None:
    values = metrics.evaluate(LABELS, PROBABILITIES).to_dict(["a", "b c", "ü"])
    assert json.loads(json.dumps(values)) == values
    assert values["classes"]["b c"] == {"images": 2, "precision": 2 / 3, "recall": 1.0}


def test_label_issues_are_more_than_the_probabilities_predict() -> None:
    labels = np.arange(200, dtype=np.int32) % 10
    probabilities = np.full((200, 10), 0.001, np.float32)
    probabilities[np.arange(200), labels] = 0.991
    assert metrics.count_test_label_issues(labels, probabilities) == 0
    wrong = labels.copy()
    wrong[:20] = (labels[:20] + 1) % 10
    assert metrics.count_test_label_issues(wrong, probabilities) == 20
    wrong[3:] = labels[3:]
    assert metrics.count_test_label_issues(wrong, probabilities) == 0  # its probabilities predict 2 of 200
    # An undecided model rules out no class.
    assert metrics.count_test_label_issues(wrong, np.full((200, 10), 0.1, np.float32)) == 0


def test_most_confused_classes() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
    predicted = np.array([0, 2, 2, 1, 0, 2, 2])
    evaluation = metrics.evaluate(truth, np.eye(3, dtype=np.float32)[predicted])
    assert metrics.most_confused(evaluation, 3) == [(0, 2, 2, 3), (1, 0, 1, 2)]
    assert metrics.most_confused(evaluation, 1) == [(0, 2, 2, 3)]
