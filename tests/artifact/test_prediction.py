from __future__ import annotations

import numpy as np
import pytest

from trainer.artifact.prediction import prediction


def test_the_most_probable_first() -> None:
    answer = prediction(np.array([0.1, 0.5, 0.02, 0.3, 0.05, 0.03], np.float32), list("abcdef"))
    assert list(answer) == ["label", "index", "probability", "top"]
    assert (answer["label"], answer["index"], answer["probability"]) == ("b", 1, 0.5)
    assert [score["label"] for score in answer["top"]] == ["b", "d", "a", "e", "f"]
    assert answer["top"][1] == {"label": "d", "index": 3, "probability": 0.3}
    assert all(type(score["index"]) is int and type(score["probability"]) is float for score in answer["top"])


def test_two_classes_and_equals() -> None:
    answer = prediction(np.array([0.5, 0.5], np.float32), ("no", "yes"))
    assert [score["label"] for score in answer["top"]] == ["no", "yes"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_no_class(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        prediction(np.array([0.5, bad], np.float32), ("a", "b"))


def test_another_number_of_labels() -> None:
    with pytest.raises(ValueError, match="2 probabilities for 3 labels"):
        prediction(np.array([0.5, 0.5], np.float32), ("a", "b", "c"))
