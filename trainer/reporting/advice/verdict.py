"""The verdict on a model: good, doubtful or bad, with the reason in one sentence."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.reporting.advice.facts import Facts, Proportion
from trainer.reporting.metrics import SIGNIFICANCE, WELL_CALIBRATED, Evaluation, is_guessing, may_be_guessing
from trainer.text import counted

MAX_ACCURACY_ERROR = 0.1  # half of the accuracy's 95 % interval, 0..1; 100 test images are enough for less
MAX_MISTAKE_RATIO = 1.5  # test to validation: the best epoch is chosen by validation, which flatters it, but by less

Grade = Literal["good", "doubtful", "bad"]


def grade(facts: Facts) -> tuple[Grade, str]:
    """Bad: no better than guessing. Doubtful: a measurement speaks against the model, or too few. Good otherwise."""
    test = facts.test
    low, high = test.accuracy_interval
    correct = f"right {in_100(test.accuracy)} times in 100 on test images"
    guess = in_100(test.guess_accuracy)
    if may_be_guessing((low, high), test.guess_accuracy):
        return "bad" if is_guessing((low, high), test.guess_accuracy) else "doubtful", (
            f"{correct}; naming the most frequent class each time would be right {guess} times, and the "
            f"model is not shown to do better by {counted(test.images, 'test image')}"
        )
    if doubt := _doubt(facts):
        return "doubtful", f"{correct}, but {doubt}"
    return "good", (
        f"{correct}, and on others like these most likely {_range_in_100(low, high)}; guessing would be right {guess} "
        f"times{_calibration_note(test)}"
    )


def in_100(share: float) -> int:
    """A share as a number of times in 100; 100 only where the share is 1, and 0 only where it is 0."""
    return min(max(round(100 * share), int(share > 0)), 100 - int(share < 1))


def is_imprecise(test: Evaluation) -> bool:
    """Whether the accuracy is known to within more than MAX_ACCURACY_ERROR."""
    low, high = test.accuracy_interval
    return high - low > 2 * MAX_ACCURACY_ERROR


def class_recall(test: Evaluation, classes: NDArray[np.bool_] | int) -> Proportion:
    """Correct predictions among the test images of some classes (a mask [K], or an index)."""
    correct, images = np.diag(test.confusion)[classes], test.confusion.sum(1)[classes]
    return Proportion(int(correct.sum()), int(images.sum()))


def validation_above_test(facts: Facts) -> Proportion | None:
    """Correct predictions on validation images, where those are clearly more than on test images."""
    val, test = facts.val, Proportion.of(facts.test.accuracy, facts.test.images)
    if val and 1 - test.share > MAX_MISTAKE_RATIO * (1 - val.share) and test.surely_below(val):
        return val
    return None


def _doubt(facts: Facts) -> str | None:
    """The first reason to doubt a model that is better than guessing."""
    test = facts.test
    if not facts.unseen:
        return "it may have learned from these very images"
    if val := validation_above_test(facts):
        return f"{in_100(val.share)} times on validation images: chance does not explain that"
    if missed := _hardly_found(test):
        found = class_recall(test, missed[0])
        others = f"; {len(missed) - 1} more like it" if len(missed) > 1 else ""
        return f"{facts.class_names[missed[0]]} is hardly found ({found.count} of {found.total}{others})"
    if is_imprecise(test):
        images, interval = counted(test.images, "test image"), _range_in_100(*test.accuracy_interval)
        return f"little is known from {images}: on others it may be right {interval}"
    if 1 - test.accuracy > (1 - test.guess_accuracy) / 2:
        return f"guessing is right {in_100(test.guess_accuracy)} times, and it still makes over half of its mistakes"
    return None


def _hardly_found(test: Evaluation) -> list[int]:
    """Classes whose recall is below half of the accuracy, beyond chance; the worst first."""
    from scipy.stats import binomtest

    classes = len(test.recall)
    missed = []
    for index in range(classes):
        found = class_recall(test, index)
        if (
            found.total
            and binomtest(found.count, found.total, test.accuracy / 2, alternative="less").pvalue
            < SIGNIFICANCE / classes
        ):
            missed.append(index)
    return sorted(missed, key=lambda index: test.recall[index])


def _range_in_100(low: float, high: float) -> str:
    """Two shares as times in 100, with a decimal where the integers are equal."""
    for digits in range(2):
        ends = [f"{100 * share:.{digits}f}" if digits else str(in_100(share)) for share in (low, high)]
        if ends[0] != ends[1]:
            return f"{ends[0]} to {ends[1]} times"
    return f"about {ends[0]} times"


def _calibration_note(test: Evaluation) -> str:
    """A clause on probabilities that are too high or too low beyond chance; empty otherwise."""
    weights = test.bin_counts / test.bin_counts.sum()
    variance = test.bin_confidence * (1 - test.bin_confidence) / np.maximum(1, test.bin_counts)
    by_chance = float((weights * np.sqrt(2 / np.pi * variance)).sum())  # mean absolute value of a normal variable
    if test.calibration_error <= max(WELL_CALIBRATED, 2 * by_chance):
        return ""
    gap = float((weights * (test.bin_confidence - test.bin_accuracy)).sum())
    if abs(gap) < test.calibration_error / 2:
        return f"; its probabilities are off by {100 * test.calibration_error:.0f} points on average"
    return f"; its probabilities are {100 * abs(gap):.0f} points too {'high' if gap > 0 else 'low'} on average"
