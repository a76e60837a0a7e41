from __future__ import annotations

import pytest

from trainer.sweep.early_stopping import falls_behind
from trainer.sweep.space import Hyperband


@pytest.mark.parametrize(
    ("epoch", "value", "others", "expected"),
    [
        (1, 0.1, [], False),  # the first one to come there goes on
        (1, 0.1, [0.2], True),
        (1, 0.2, [0.1], False),
        (1, 0.2, [0.2], False),  # as good as the best
        (2, 0.1, [0.9] * 9, False),  # no comparison after this epoch
        (3, 0.5, [0.9, 0.8, 0.7, 0.6], True),  # the best third of five is one
        (9, 0.8, [0.9, 0.7, 0.6, 0.5, 0.4], False),  # of six, two
        (9, 0.6, [0.9, 0.7, 0.8, 0.5, 0.4], True),
    ],
)
def test_the_best_third_after_1_3_and_9_epochs_goes_on(
    epoch: int, value: float, others: list[float], expected: bool
) -> None:
    assert falls_behind(Hyperband(1, 3), epoch, value, lambda _: others) is expected
