from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from advice_facts import CLASS_NAMES, EVEN, INSPECT, judge_model
from numpy.typing import NDArray

from trainer.reporting.advice import Facts, Proportion, judge
from trainer.reporting.advice.verdict import in_100
from trainer.reporting.metrics import evaluate


@pytest.mark.parametrize(
    ("confusion", "facts", "verdict", "parts"),
    [
        (EVEN, {}, "good", ["right 95 times in 100", "91 to 97 times", "guessing would be right 25 times"]),
        # 8 of 18 correct, 6 by guessing.
        ([[3, 2, 1], [2, 3, 1], [2, 2, 2]], {}, "bad", ["right 44 times", "be right 33 times", "18 test images"]),
        # 8 of 8 correct: too few to tell that from guessing, which names 6 of them.
        ([[6, 0], [0, 2]], {}, "doubtful", ["right 100 times", "be right 75 times", "8 test images"]),
        # Always predicting `hat` is correct 90 times in 100 as well.
        ([[90, 0], [10, 0]], {}, "bad", ["be right 90 times"]),
        (EVEN, {"unseen": False}, "doubtful", ["these very images"]),
        ([[40, 10], [10, 40]], {"val": Proportion(190, 200)}, "doubtful", ["95 times on validation images"]),
        # The same shares of few images: chance may explain the difference.
        ([[16, 4], [4, 16]], {"val": Proportion(19, 20)}, "doubtful", ["40 test images", "65 to 90 times"]),
        # 1.4 times as many mistakes, beyond chance in 10,000 images; but few.
        ([[4950, 50], [60, 4940]], {"val": Proportion(9920, 10_000)}, "good", ["right 99 times in 100"]),
        ([[90, 0, 0], [0, 90, 0], [12, 6, 2]], {}, "doubtful", ["shirt", "2 of 20"]),
        ([[40, 0, 0, 0], [0, 40, 0, 0], [10, 10, 0, 0], [9, 10, 0, 1]], {}, "doubtful", ["shirt", "0 of 20",
         "1 more"]),
        ([[90, 0, 0], [9, 1, 0], [8, 1, 1]], {}, "bad", ["be right 82 times"]),
        ([[60, 0, 0], [18, 1, 1], [19, 0, 1]], {}, "bad", ["be right 60 times"]),
        ([[70, 30], [30, 70]], {}, "doubtful", ["guessing is right 50 times", "over half"]),
    ],
)  # fmt: skip
def test_verdict_and_reason(confusion: list[list[int]], facts: dict[str, Any], verdict: str, parts: list[str]) -> None:
    found = judge_model(confusion, **facts)
    assert found.verdict == verdict, found.reason
    assert all(part in found.reason for part in parts), found.reason


def test_in_100_is_0_or_100_only_where_exact() -> None:
    assert [in_100(share) for share in (0, 0.001, 0.094, 0.5, 0.999, 1)] == [0, 1, 9, 50, 99, 100]


def test_equal_ends_of_the_interval_get_a_decimal() -> None:
    assert " 98.7 to 99.1 times" in judge_model([[4950, 50], [60, 4940]]).reason
    assert " about 99.0 times" in judge_model([[495_000, 5000], [5000, 495_000]]).reason


def _reason(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> str:
    return judge(Facts(CLASS_NAMES[:2], evaluate(labels, probabilities), True, None, 0, INSPECT, None)).reason


def test_wrong_probabilities_are_part_of_the_reason() -> None:
    labels = np.arange(400, dtype=np.int32) % 2

    def reason(correct: NDArray[np.bool_], confidence: NDArray[np.float64]) -> str:
        predicted = np.where(correct, labels, 1 - labels)
        probabilities = [np.where(predicted == index, confidence, 1 - confidence) for index in (0, 1)]
        return _reason(labels, np.stack(probabilities, 1).astype(np.float32))

    correct = np.arange(400) >= 40  # 90 in 100
    assert "9 points too high" in reason(correct, np.full(400, 0.99))
    assert "15 points too low" in reason(correct, np.full(400, 0.75))
    assert "points" not in reason(correct, np.full(400, 0.91))
    # Half of the predictions are overconfident, half underconfident.
    overconfident = np.arange(400) % 4 < 2
    correct = ~overconfident | (np.arange(400) % 20 >= 4)
    assert "off by 19 points" in reason(correct, np.where(overconfident, 0.99, 0.8))
