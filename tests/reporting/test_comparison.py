from __future__ import annotations

import numpy as np
import pytest

from trainer.reporting.comparison import ClassChange, compare


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_worse"),
    [
        (0, 0, 1),
        (4, 0, 1 / 16),
        (5, 0, 1 / 32),
        (6, 1, 8 / 128),  # 7 or 6 of 7
        (8, 1, 10 / 512),  # 9 or 8 of 9
        (1, 1, 3 / 4),
    ],
)
def test_the_test_is_the_sign_test_of_the_images_that_one_alone_gets_right(
    only_a: int, only_b: int, p_worse: float
) -> None:
    both = 90
    truth = np.array(["cat"] * (both + only_a + only_b))
    a = np.array(["cat"] * (both + only_a) + ["dog"] * only_b)
    b = np.array(["cat"] * both + ["dog"] * only_a + ["cat"] * only_b)
    compared = compare(truth, a, b)
    assert compared.p_worse == pytest.approx(p_worse)
    assert compare(truth, b, a).p_better == compared.p_worse
    assert compared.is_worse == (p_worse < 0.05)
    assert not compared.is_better
    assert len(compared.only_a) == only_a
    assert compared.only_b.tolist() == list(range(both + only_a, len(truth)))


def test_classes_that_lose_come_first() -> None:
    truth = np.array(["cat", "cat", "dog", "owl", "owl", "owl"])
    a = np.array(["cat", "cat", "cat", "owl", "cat", "cat"])
    b = np.array(["cat", "owl", "cat", "owl", "owl", "owl"])
    compared = compare(truth, a, b)
    assert compared.classes() == [
        ClassChange("cat", images=2, a_correct=2, b_correct=1),
        ClassChange("dog", images=1, a_correct=0, b_correct=0),
        ClassChange("owl", images=3, a_correct=1, b_correct=3),
    ]
    assert compared.a_accuracy == 0.5
    assert compared.b_accuracy == pytest.approx(4 / 6)
