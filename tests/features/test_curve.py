from __future__ import annotations

import numpy as np
import pytest
from test_linear_probe import clouds

from trainer.errors import Interrupted
from trainer.features.curve import _turns, measure_curve
from trainer.features.linear_probe import fit_at, fit_head


def test_the_head_on_growing_shares() -> None:
    train, val = clouds(3, 80, seed=0, spread=8), clouds(3, 100, seed=1, spread=8)
    head = fit_head(train, val, 3)
    asked: list[None] = []
    curve = measure_curve(head, train, val, check_interrupted=lambda: asked.append(None))
    assert curve
    assert curve.images == (60, 120, 180, 240)
    assert len(asked) == 12
    assert curve.right.shape == (4, 4, 300)
    # All of them: the head itself, with its own weight decay.
    right = head.probabilities(val[0]).argmax(1) == val[1]
    np.testing.assert_array_equal(curve.right[-1], np.tile(right, (4, 1)))
    again = fit_at(head.strength, train, 3).probabilities(val[0]).argmax(1) == val[1]
    np.testing.assert_array_equal(again, right)
    assert curve.accuracy[0] < curve.accuracy[-1]
    assert len({*map(bytes, curve.right[0])}) == 4  # draws differ
    np.testing.assert_array_equal(measure_curve(head, train, val).right, curve.right)  # type: ignore[union-attr]

    def stop() -> None:
        raise Interrupted("stop", 143)

    with pytest.raises(Interrupted):
        measure_curve(head, train, val, check_interrupted=stop)


def test_a_rare_class_is_in_every_share() -> None:
    features, labels = clouds(2, 40, seed=0)
    rare = np.r_[:40, 40]
    head = fit_head((features[rare], labels[rare]), (features, labels), 2)
    curve = measure_curve(head, (features[rare], labels[rare]), (features, labels))
    assert curve
    assert curve.images == (11, 21, 31, 41)
    assert _turns(labels[rare], np.random.default_rng(0))[40] == 0


def test_none_where_it_says_nothing() -> None:
    train, val = clouds(3, 40, seed=0), clouds(3, 10, seed=1)
    head = fit_head(train, val, 3)
    assert measure_curve(head, train, val, budget_s=0) is None
    one = train[1] == 1
    assert measure_curve(head, (train[0][one], train[1][one]), val) is None
    few = np.r_[:7, 40:47, 80:87]
    assert measure_curve(head, (train[0][few], train[1][few]), val) is None
