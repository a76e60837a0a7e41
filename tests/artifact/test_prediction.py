from __future__ import annotations

import numpy as np
import pytest

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES
from trainer.artifact.prediction import prediction


def outputs(*probabilities: float, ood_score: float | None = None) -> dict[str, np.ndarray]:
    """Engine outputs of one image."""
    rows = {PROBABILITIES: np.array(probabilities, np.float32)}
    return rows if ood_score is None else rows | {OOD_SCORE: np.array(ood_score, np.float32)}


def test_top_is_sorted_by_probability() -> None:
    answer = prediction(outputs(0.1, 0.5, 0.02, 0.3, 0.05, 0.03), list("abcdef"), 0.4)
    assert list(answer) == ["label", "index", "probability", "known", "top"]
    assert (answer["label"], answer["index"], answer["probability"]) == ("b", 1, 0.5)
    assert [score["label"] for score in answer["top"]] == ["b", "d", "a", "e", "f"]
    assert answer["top"][1] == {"label": "d", "index": 3, "probability": 0.3}
    assert all(type(score["index"]) is int and type(score["probability"]) is float for score in answer["top"])


def test_the_lower_index_comes_first_of_equal_probabilities() -> None:
    answer = prediction(outputs(0.5, 0.5), ("no", "yes"), None)
    assert [score["label"] for score in answer["top"]] == ["no", "yes"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    for row in (outputs(0.5, bad), outputs(0.5, 0.5, ood_score=bad)):
        with pytest.raises(FloatingPointError, match="not finite"):
            prediction(row, ("a", "b"), 0.5)


def test_another_number_of_class_names_is_refused() -> None:
    with pytest.raises(ValueError, match="2 probabilities for 3 "):
        prediction(outputs(0.5, 0.5), ("a", "b", "c"), 0.5)


@pytest.mark.parametrize(
    ("probability", "ood_score", "threshold", "known"),
    [
        (0.7, None, 0.7, True),  # rounded: float32 has no 0.7
        (0.699999, None, 0.7, False),
        (0.7, 0.9949, 0.7, True),
        (0.7, 0.995, 0.7, False),
        (0.6, 0.0, 0.7, False),
        (1.0, None, 1.0, False),  # no probability is enough
        (1.0, 0.0, 1.0, False),
        (1.0, None, 0.999999, True),
        (0.6, None, None, True),  # an artifact of the first format
    ],
)
def test_known(probability: float, ood_score: float | None, threshold: float | None, known: bool) -> None:
    answer = prediction(outputs(probability, 1 - probability, ood_score=ood_score), ("a", "b"), threshold)
    assert answer["known"] is known
