from __future__ import annotations

import numpy as np
from advice_facts import (
    EVEN,
    INSPECT,
    MIXED,
    advice,
    assert_only_advice,
    judge_model,
    make_history,
    make_training,
)

from trainer.reporting.advice import Proportion
from trainer.reporting.learning_curve import LearningCurve


def test_swapped_classes() -> None:
    swapped = [[2, 48, 0, 0], [47, 2, 1, 0], [0, 0, 50, 0], [0, 1, 0, 49]]
    run = make_training({"limit": 40}, limited=60)  # a consequence is not shown
    assert_only_advice(["hat and shoe are swapped", "48 of 50 and 47 of 50"], INSPECT, swapped, run)
    # Only one of the two classes is mostly taken for the other.
    one_way = [[2, 48, 0, 0], [7, 42, 1, 0], [0, 0, 50, 0], [0, 1, 0, 49]]
    assert "swapped" not in str(judge_model(one_way).advice)


def test_does_not_generalize() -> None:
    assert_only_advice(["labels fit the images"], INSPECT, [[13, 12, 13, 12]] * 4)
    assert "labels fit" not in str(judge_model([[2, 1, 1, 1]] * 4).advice)  # too few test images to say so


def test_label_issues_of_test_images() -> None:
    assert_only_advice(["wrong labels", "of 10, 6 have a label"], INSPECT, EVEN, label_issues=6)
    assert advice(EVEN, label_issues=4) == []
    assert advice(MIXED, label_issues=6) == []  # 34 mistakes of its own: it cannot tell


def test_label_issues_of_training_images() -> None:
    run = make_training(label_issues=Proportion(40, 900))
    assert_only_advice(["40 of 900 training and validation images"], f"{INSPECT} --page page.html", EVEN, run)
    assert advice(EVEN, make_training(label_issues=Proportion(10, 900))) == []  # every collection has some


def test_test_images_unlike_the_others() -> None:
    expected = ["add images like the test images", "80 in 100", "validation images 95"]
    assert_only_advice(expected, INSPECT, MIXED, val=Proportion(190, 200))
    assert advice(MIXED, val=Proportion(172, 200)) == []  # 86 in 100: chance may explain it
    assert advice(MIXED, val=None) == []


def test_rare_classes_with_low_recall() -> None:
    confusion = [[49, 1, 0, 0], [1, 49, 0, 0], [5, 4, 11, 0], [4, 5, 0, 11]]
    rare = np.array([600, 600, 60, 60])
    text, command = advice(confusion, make_training(images_per_class=rare))[0]
    assert "shirt and skirt" in text
    assert "55 in 100 are found, of the others 98" in text
    assert command == " --class-weights=balanced"
    weighted = make_training({"class_weights": "balanced"}, images_per_class=rare)
    assert "weigh" not in str(judge_model(confusion, weighted).advice)
    assert advice(confusion, make_training(images_per_class=np.array([100, 100, 60, 60]))) == []
    assert advice(EVEN, make_training(images_per_class=rare)) == []


FEW = np.array([20, 90, 8, 49])
FEW_NAMES = "hat, shirt and skirt: shirt has 8 "


def test_few_images_of_a_class() -> None:
    run = make_training({"seed": 3}, images_per_class=FEW)
    assert_only_advice([f"add images of {FEW_NAMES}", "50 of a class"], " --seed=3", MIXED, run)
    confusion = [*EVEN[:2], [0, 0, 50, 0], [0, 0, 0, 50]]
    assert advice(confusion, make_training(images_per_class=np.full(4, 8)))[0][0].startswith("add images")
    assert advice(MIXED, make_training(images_per_class=np.full(4, 50))) == []


def _curve(*correct: int, val_images: int = 2000) -> LearningCurve:
    """Correct predictions for `val_images`, with 200, 400, 600 and 800 training images; alike in both draws."""
    each = np.arange(val_images) < np.array(correct)[:, None, None]
    return LearningCurve((200, 400, 600, 800), np.repeat(each, 2, axis=1))


RISING = _curve(1400, 1520, 1568, 1616)
FLAT = _curve(1600, 1604, 1602, 1604)
UNCLEAR = _curve(80, 81, 80, 82, val_images=120)
MEASURED = (
    "with 400 of the 800 training images 76.0 % of the validation images are named right, with all of them 80.8 %"
)


def test_learning_curve() -> None:
    run = make_training({"seed": 3}, curve=RISING)
    assert_only_advice([f"add images: {MEASURED}; twice as many would"], " --seed=3", MIXED, run)
    assert advice([[50, 0], [1, 49]], make_training(curve=RISING)) == []
    run = make_training(curve=FLAT)
    assert_only_advice(["rather than for more images", "of the 800 training images 80.2 %"], INSPECT, MIXED, run)
    assert advice(MIXED, make_training(curve=UNCLEAR)) == []


def test_learning_curve_with_few_images_of_a_class() -> None:
    run = make_training(curve=RISING, images_per_class=FEW)
    assert_only_advice([FEW_NAMES, MEASURED], "", MIXED, run)
    run = make_training(curve=UNCLEAR, images_per_class=FEW)
    assert_only_advice([FEW_NAMES, "50 of a class"], "", MIXED, run)
    run = make_training(curve=FLAT, images_per_class=np.full(4, 40))
    assert_only_advice(["rather than for more images"], INSPECT, MIXED, run)
    # The curve is of all classes together and says nothing of a rare one.
    run = make_training(curve=FLAT, images_per_class=np.array([90, 90, 8, 90]))
    assert_only_advice(["add images of shirt: shirt has 8"], "", MIXED, run)


OVERFITTED = make_history(0.7, 0.8, 0.75, training=0.98, loss=0.6)
VAL = {"val": Proportion(160, 200)}


def test_learning_curve_with_overfitting() -> None:
    assert_only_advice(["add images: with 400"], "", MIXED, make_training(history=OVERFITTED, curve=RISING), **VAL)
    run = make_training(history=OVERFITTED, curve=FLAT)
    assert_only_advice(["rather than for more images"], INSPECT, MIXED, run, **VAL)
    run = make_training(history=OVERFITTED, curve=UNCLEAR)
    assert_only_advice(["by heart: 98 in 100", "points more, and perhaps none"], "", MIXED, run, **VAL)


def test_overfitting() -> None:
    expected = ["by heart: 98 in 100 of them", "80 of the validation images"]
    assert_only_advice([*expected, "the same again"], "", MIXED, make_training(history=OVERFITTED), **VAL)
    from_scratch = make_training(history=OVERFITTED, pretrained=False, auto_is_pretrained=False)
    assert_only_advice(expected, " --augment=strong", MIXED, from_scratch, **VAL)
    # 13 in 100 wrong on training images, and 20 on validation: augmented images are harder, the difference is usual.
    assert advice(MIXED, make_training(history=make_history(0.8, training=0.87)), **VAL) == []
    assert advice(MIXED, make_training(history=make_history(0.9, training=0.98)), val=Proportion(9, 10)) == []


def test_two_confused_classes() -> None:
    confusion = [[48, 1, 1, 0], [1, 48, 0, 1], [0, 1, 35, 14], [2, 0, 9, 39]]
    assert_only_advice(["shirt from skirt", "23 of 30 mistakes"], INSPECT, confusion)
    assert advice(MIXED) == []
    assert advice([[95, 5], [9, 91]]) == []  # two classes are one pair


def test_unreadable_files() -> None:
    assert_only_advice(["delete 8 files"], INSPECT, run=make_training(unreadable=8))
    assert advice(run=make_training(unreadable=7)) == []  # below one in a hundred


def test_few_test_images() -> None:
    confusion = [[9, 1], [1, 9]]
    assert_only_advice(["100 test images", "there are 20"], " --seed=3", confusion, make_training({"seed": 3}))
    assert advice(confusion, run=None, training=None) == []  # evaluate: the test images are the user's own choice
