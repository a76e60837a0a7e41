from __future__ import annotations

import numpy as np
import pytest
from test_linear_probe import clouds

from trainer.errors import Interrupted
from trainer.features.curve import measure_curve
from trainer.features.linear_probe import fit_linear_probe, fit_with_c


def test_accuracy_on_growing_shares() -> None:
    train, val = clouds(3, 80, seed=0, spread=8), clouds(3, 100, seed=1, spread=8)
    probe = fit_linear_probe(train, val, 3)
    calls: list[None] = []
    curve = measure_curve(probe, train, val, check_interrupted=lambda: calls.append(None))
    assert curve
    assert curve.images == (60, 120, 180, 240)
    assert len(calls) == 12
    assert curve.correct.shape == (4, 4, 300)
    # The last point is the probe itself, which has the same C as the others.
    right = probe.probabilities(val[0]).argmax(1) == val[1]
    np.testing.assert_array_equal(curve.correct[-1], np.tile(right, (4, 1)))
    again = fit_with_c(probe.c, train, 3).probabilities(val[0]).argmax(1) == val[1]
    np.testing.assert_array_equal(again, right)
    assert curve.accuracy[0] < curve.accuracy[-1]
    assert len({*map(bytes, curve.correct[0])}) == 4  # draws differ
    repeated = measure_curve(probe, train, val)
    assert repeated
    np.testing.assert_array_equal(repeated.correct, curve.correct)

    def stop() -> None:
        raise Interrupted("stop", 143)

    with pytest.raises(Interrupted):
        measure_curve(probe, train, val, check_interrupted=stop)


def test_a_rare_class_is_in_every_share() -> None:
    features, labels = clouds(2, 40, seed=0)
    rare = np.r_[:40, 40]
    probe = fit_linear_probe((features[rare], labels[rare]), (features, labels), 2)
    curve = measure_curve(probe, (features[rare], labels[rare]), (features, labels))
    assert curve
    assert curve.images == (10 + 1, 20 + 1, 30 + 1, 40 + 1)


def test_no_curve_without_time_images_or_classes() -> None:
    train, val = clouds(3, 40, seed=0), clouds(3, 10, seed=1)
    probe = fit_linear_probe(train, val, 3)
    assert measure_curve(probe, train, val, budget_s=0) is None
    one_class = train[1] == 1
    assert measure_curve(probe, (train[0][one_class], train[1][one_class]), val) is None
    few = np.r_[:7, 40:47, 80:87]
    assert measure_curve(probe, (train[0][few], train[1][few]), val) is None
