"""Advice rules about the data: labels, number of images, balance of the classes, and test images unlike the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.reporting.advice.facts import MIN_MISTAKES, Advice, Facts, Proportion
from trainer.reporting.advice.verdict import class_recall, grade, in_100, is_imprecise, validation_above_test
from trainer.reporting.metrics import FEW_TEST_IMAGES, SIGNIFICANCE
from trainer.text import counted

ENOUGH_IMAGES = 50  # of a class: a pretrained network gains 5 points on CIFAR-10 from 25 to 50
IMBALANCE_RATIO = 3  # times the images of another class
OVERFITTING_RATIO = 3  # mistakes on validation to those on training images, which augmentation makes harder
MIN_LABEL_ISSUES = 5  # every collection has a handful
MAX_OWN_MISTAKES = 0.1  # of all images: a model with more cannot tell a wrong label from its own mistake
MIN_CONFUSED_SHARE = 0.25  # of all mistakes: worth a person's time
MIN_CONFUSED_IMAGES = 5
MIN_UNREADABLE_SHARE = 0.01  # of the training images


def swapped_classes(facts: Facts) -> Advice | None:
    """Most images of each of two classes are predicted as the other class."""
    confusion, predicted = facts.test.confusion, facts.test.confusion.argmax(1)
    images = confusion.sum(1)
    for first, second in enumerate(predicted):
        there, back = (
            Proportion(int(confusion[truth, answer]), int(images[truth]))
            for truth, answer in ((first, second), (second, first))
        )
        if first < second and min(there.interval[0], back.interval[0]) > 0.5:
            return Advice(
                f"look whether the labels of {facts.class_names[first]} and {facts.class_names[second]} are swapped "
                f"among the training or the test images: {there.count} of {there.total} and {back.count} of "
                f"{back.total} are taken for the other",
                facts.inspect_command,
            )
    return None


def does_not_generalize(facts: Facts) -> Advice | None:
    """No better than guessing, with enough test images to say so."""
    if grade(facts)[0] != "bad" or is_imprecise(facts.test):
        return None
    return Advice(
        "look whether the labels fit the images: what it learned does not hold for the test images",
        facts.inspect_command,
    )


def label_issues(facts: Facts) -> Advice | None:
    """Many training labels look wrong; or many test labels do, and the model is good enough to tell."""
    run = facts.training
    found = run.label_issues if run else None
    if found and found.count >= max(MIN_LABEL_ISSUES, MIN_MISTAKES * found.total):
        return Advice(
            f"look for wrong labels: {found.count} of {found.total} training and validation images look like another "
            "class; the page shows them, and makes a table without them",
            f"{facts.inspect_command} --page page.html",
        )
    test, count = facts.test, facts.label_issues
    mistakes = test.images - int(np.trace(test.confusion))
    if count < max(MIN_LABEL_ISSUES, MIN_MISTAKES * test.images) or mistakes - count > MAX_OWN_MISTAKES * test.images:
        return None
    return Advice(
        f"look for wrong labels among the report's worst mistakes: of {mistakes}, {count} have a label that the model "
        "finds all but impossible",
        facts.inspect_command,
    )


def test_below_validation(facts: Facts) -> Advice | None:
    """More mistakes on test than on validation images, beyond chance."""
    val = validation_above_test(facts)
    if not val:
        return None
    return Advice(
        f"add images like the test images to the training images: of those {in_100(facts.test.accuracy)} in 100 are "
        f"named right, of the validation images {in_100(val.share)}; another camera, place or time?",
        facts.inspect_command,
    )


def unbalanced(facts: Facts) -> Advice | None:
    """Classes with few training images have a lower recall than the others, beyond chance."""
    run = facts.training
    if not run or run.config.class_weights != "none":
        return None
    rare = IMBALANCE_RATIO * run.images_per_class < run.images_per_class.max()
    rare_recall, other_recall = class_recall(facts.test, rare), class_recall(facts.test, ~rare)
    if not rare_recall.surely_below(other_recall):
        return None
    return Advice(
        f"weigh the classes alike: of the test images of {_listed(facts.class_names, rare)}, with few training images, "
        f"{in_100(rare_recall.share)} in 100 are found, of the others {in_100(other_recall.share)}",
        run.command(class_weights="balanced"),
    )


def few_images(facts: Facts) -> Advice | None:
    """A class has few training images, and there are mistakes to reduce.

    Not while `--limit` leaves images out, here and in the next rules: the advice to use all comes first.
    """
    run = facts.training
    if not run or run.limited or not facts.can_improve or run.images_per_class.min() >= ENOUGH_IMAGES:
        return None
    if run.curve and run.curve.flat and IMBALANCE_RATIO * run.images_per_class.min() >= run.images_per_class.max():
        return None  # the curve covers all classes together: it says nothing about a rare one
    names, fewest = _listed(facts.class_names, run.images_per_class < ENOUGH_IMAGES), int(run.images_per_class.argmin())
    benefit = run.curve.summary if run.curve and run.curve.rises else f"{ENOUGH_IMAGES} of a class are far better"
    return Advice(
        f"add images of {names}: {facts.class_names[fewest]} has {run.images_per_class[fewest]} to learn from, and "
        f"{benefit}; then the same again",
        run.command(),
    )


def more_images(facts: Facts) -> Advice | None:
    """Each class has enough images, and the measured learning curve still rises, or is flat."""
    run = facts.training
    if not run or run.limited or not run.curve or not facts.can_improve or few_images(facts):
        return None
    if run.curve.rises:
        return Advice(f"add images: {run.curve.summary}; then the same again", run.command())
    if run.curve.flat:
        return Advice(f"look at the mistakes rather than for more images: {run.curve.summary}", facts.inspect_command)
    return None


def overfitting(facts: Facts) -> Advice | None:
    """Far more mistakes on validation than on training images."""
    run = facts.training
    if not run or not facts.val or not facts.can_improve or few_images(facts) or more_images(facts):
        return None
    train = Proportion.of(run.best["accuracy"], run.images)
    val = Proportion.of(run.best["val_accuracy"], facts.val.total)
    if 1 - val.share < OVERFITTING_RATIO * (1 - train.share) or not val.surely_below(train):
        return None
    text = (
        f"add images, as it knows those that it learned from by heart: {in_100(train.share)} in 100 of them are named "
        f"right, and {in_100(val.share)} of the validation images"
    )
    if run.curve and run.curve.doubling:
        text += f"; {run.curve.outlook}"
    if run.pretrained or run.config.augment == "strong":  # `auto` is strong for a pretrained network
        return None if run.limited else Advice(f"{text}; then the same again", run.command())
    return Advice(f"{text}; without more, stronger changes to them may do a little", run.command(augment="strong"))


def confused_classes(facts: Facts) -> Advice | None:
    """One pair of at least three classes makes a large part of the mistakes, beyond chance."""
    from scipy.stats import binomtest

    pairs = np.triu(facts.test.confusion + facts.test.confusion.T, 1)
    first, second = np.unravel_index(pairs.argmax(), pairs.shape)
    mistakes, count = int(pairs.sum()), int(pairs[first, second])
    pair_count = len(pairs) * (len(pairs) - 1) // 2
    if count < max(MIN_CONFUSED_IMAGES, MIN_CONFUSED_SHARE * mistakes):
        return None
    if binomtest(count, mistakes, 1 / pair_count, alternative="greater").pvalue > SIGNIFICANCE / pair_count:
        return None
    names = facts.class_names[int(first)], facts.class_names[int(second)]
    return Advice(
        f"look whether you can tell {names[0]} from {names[1]}, and add images of both: {count} of {mistakes} mistakes "
        "take one for the other",
        facts.inspect_command,
    )


def unreadable_files(facts: Facts) -> Advice | None:
    """A considerable share of the files could not be read."""
    run = facts.training
    if not run or run.unreadable < max(1, MIN_UNREADABLE_SHARE * run.images):
        return None
    return Advice(
        f"repair or delete {counted(run.unreadable, 'file')}, unreadable as images and left out",
        facts.inspect_command,
    )


def few_test_images(facts: Facts) -> Advice | None:
    """There are too few test images for a precise accuracy."""
    if not facts.training or not is_imprecise(facts.test):
        return None
    return Advice(
        f"add images: {FEW_TEST_IMAGES} test images tell the accuracy to within 10 points, and there are "
        f"{facts.test.images}; then the same again",
        facts.training.command(),
    )


def _listed(class_names: Sequence[str], selected: NDArray[np.bool_]) -> str:
    """`hat`, `hat and skirt`, or `hat, skirt and 3 more`."""
    names = [name for name, chosen in zip(class_names, selected, strict=True) if chosen]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
