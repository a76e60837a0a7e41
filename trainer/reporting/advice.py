"""What to think of a model and what to try next, from what was measured: `judge`.

Each rule below looks at the facts, and says one sentence and the command to try, or nothing. CAUSES and RULES, at the
end, have them in the order in which they help most. A difference counts where chance does not explain it: the 95 %
intervals of two shares are apart, or a binomial test says so (where it is asked for each of many, they share CHANCE).
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig
from trainer.reporting.learning_curve import LearningCurve
from trainer.reporting.metrics import CHANCE, FEW_TEST_IMAGES, Evaluation, accuracy_interval

WIDE = 0.1  # half of the accuracy's interval, 0..1; 100 test images are enough for less
OFF = 0.03  # calibration error, up to which probabilities are as good as true
MOST_ADVICE = 3  # more is not read
ROOM = 0.02  # mistakes, 0..1, below which no advice tells how to train better: labels themselves are rarely as good
HALF_AGAIN = 1.5  # so many times the mistakes: the best epoch by validation flatters validation, but not by that much
LEAST_STEPS = 200  # where nobody asks for epochs or a batch, no run stops before
ENOUGH_IMAGES = 50  # of a class: from 25 to 50, 5 points are gained on CIFAR-10 by a pretrained network, from 10 10
UNBALANCED = 3  # times the images of another class
STILL_FALLING = 0.05  # of the validation loss, over the last quarter of the epochs; less is the noise of an epoch
BY_HEART = 3  # times the mistakes on validation of those on training images, which augmentation makes harder to name
WRONG_LABELS = 5  # a handful is in every collection
OWN_MISTAKES = 0.1  # of all images: a model with more cannot tell a wrong label from a mistake of its own
CONFUSED_SHARE = 0.25  # of all mistakes: worth a person's time
CONFUSED_IMAGES = 5
UNREADABLE_SHARE = 0.01  # of the training images
# Options that suit one network and not the next.
OF_A_MODEL = ("image_size", "epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "dropout")

Grade = Literal["good", "doubtful", "bad"]


@dataclass(frozen=True)
class Share:
    """So many of so many images."""

    count: int
    images: int

    @classmethod
    def of(cls, share: float, images: int) -> Share:
        return cls(round(share * images), images)

    @property
    def share(self) -> float:
        """0..1; 0 of none."""
        return self.count / max(1, self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """Where it lies for all images of the kind, 0..1; anywhere for none."""
        return accuracy_interval(self.share, self.images) if self.images else (0.0, 1.0)


@dataclass(frozen=True)
class Training:
    """What is known of the run that has made a model."""

    config: FitConfig
    learning_rate: float  # the peak
    usual_learning_rate: float  # of this network, where none is asked for
    pretrained: bool
    auto_is_pretrained: bool  # what `--model auto` would train on these images
    history: Sequence[Mapping[str, float]]  # an entry for each epoch; 0 is the head of a pretrained network
    steps: int  # done
    steps_per_epoch: int
    end: Literal["all epochs", "no better", "no time"]  # why it ended
    images: NDArray[np.int64]  # training images of each class, [K]
    limited: int  # training images that --limit left out
    unreadable: int  # files
    curve: LearningCurve | None  # what more images would bring; None where it was not measured
    wrong_labels: Share | None = None  # of the training and validation images, by a linear head; None: nobody looked

    @property
    def epochs(self) -> Sequence[Mapping[str, float]]:
        """The history without the head."""
        return [entry for entry in self.history if entry["epoch"] >= 1]

    @property
    def best(self) -> Mapping[str, float]:
        """The entry of the weights that are kept."""
        return max(self.history, key=lambda entry: (entry["val_accuracy"], -entry["val_loss"]))

    def command(self, **changes: Any) -> str:
        """What trains the same again, with other options."""
        return shlex.join(dataclasses.replace(self.config, **changes).command())


@dataclass(frozen=True)
class Facts:
    """What is known of a model of K classes."""

    class_names: Sequence[str]  # [K]
    test: Evaluation
    unseen: bool  # whether the test images are known to be none that it learned from
    val: Share | None  # the validation images named right; None without any
    mislabelled: int  # test images whose label is likely wrong
    inspect: str  # the command that shows the images
    training: Training | None  # None: of a model that is only measured


@dataclass(frozen=True)
class Advice:
    """One thing to do: one sentence, and the command that does it or comes after it."""

    text: str
    command: str


@dataclass(frozen=True)
class Judgement:
    """How good a model is and why, one sentence; and at most MOST_ADVICE, the most useful first."""

    verdict: Grade
    reason: str
    advice: list[Advice]


def judge(facts: Facts) -> Judgement:
    """No advice where nothing that was measured asks for any."""
    verdict, reason = _verdict(facts)
    advice = [found for rule in CAUSES if (found := rule(facts))]
    if not advice:
        advice = [found for rule in RULES if (found := rule(facts))]
    return Judgement(verdict, reason, advice[:MOST_ADVICE])


def _verdict(facts: Facts) -> tuple[Grade, str]:
    """Bad: no better than guessing. Doubtful: something measured speaks against it. Good otherwise."""
    test = facts.test
    low, high = test.accuracy_interval
    right = f"right {in_100(test.accuracy)} times in 100 on test images"
    guess = in_100(test.guess_accuracy)
    if low <= test.guess_accuracy:
        return "bad", (
            f"{right}; naming the most frequent class each time would be right {guess} times, and {test.images} test "
            "images do not show that the model does better"
        )
    if doubt := _doubt(facts):
        return "doubtful", f"{right}, but {doubt}"
    return "good", (
        f"{right}, and on others like these most likely {_between(low, high)}; guessing would be right {guess} times"
        f"{_off(test)}"
    )


def _doubt(facts: Facts) -> str | None:
    """The first of what speaks against a model that is better than guessing."""
    test = facts.test
    low, high = test.accuracy_interval
    if not facts.unseen:
        return "it may have learned from these very images"
    if val := _clearly_above_test(facts):
        return f"{in_100(val.share)} times on validation images: chance does not explain that"
    if missed := _hardly_found(test):
        found = _found(test, missed[0])
        others = f", nor are {len(missed) - 1} more classes" if len(missed) > 1 else ""
        return f"{facts.class_names[missed[0]]} is hardly found ({found.count} of {found.images}){others}"
    if high - low > 2 * WIDE:
        return f"{test.images} test images tell little: on others it may be right {_between(low, high)}"
    if 1 - test.accuracy > (1 - test.guess_accuracy) / 2:
        return f"guessing is right {in_100(test.guess_accuracy)} times, and it still makes over half of its mistakes"
    return None


def _between(low: float, high: float) -> str:
    """Two shares as times in 100, told apart where they are."""
    for digits in range(2):
        ends = [f"{100 * share:.{digits}f}" if digits else str(in_100(share)) for share in (low, high)]
        if ends[0] != ends[1]:
            return f"{ends[0]} to {ends[1]} times"
    return f"about {ends[0]} times"


def _off(test: Evaluation) -> str:
    """What is said where the probabilities are too high or too low, and chance does not explain it."""
    share = test.bin_counts / test.bin_counts.sum()
    spread = test.bin_confidence * (1 - test.bin_confidence) / np.maximum(1, test.bin_counts)
    by_chance = float((share * np.sqrt(2 / np.pi * spread)).sum())  # the mean distance of a normal variable
    if test.calibration_error <= max(OFF, 2 * by_chance):
        return ""
    gap = float((share * (test.bin_confidence - test.bin_accuracy)).sum())
    if abs(gap) < test.calibration_error / 2:
        return f"; its probabilities are off by {100 * test.calibration_error:.0f} points on average"
    return f"; its probabilities are {100 * abs(gap):.0f} points too {'high' if gap > 0 else 'low'} on average"


def _when(entry: Mapping[str, float]) -> str:
    """The entry of the head alone has no epoch."""
    return f"in epoch {entry['epoch']:.0f}" if entry["epoch"] else "before the first epoch"


def in_100(share: float) -> int:
    """A share as times in 100: 100 is said only where all are right, and 0 only where none is."""
    return min(max(round(100 * share), int(share > 0)), 100 - int(share < 1))


# The rules


def learned_nothing(facts: Facts) -> Advice | None:
    """In the end it was no better on its training images than guessing, and there were steps enough.

    Whatever it was before: while the learning rate still rose, it may have learned something, and lost it.
    """
    run = facts.training
    if not run or not run.epochs or run.steps < LEAST_STEPS:
        return None
    guess = run.images.max() / run.images.sum()
    if accuracy_interval(run.epochs[-1]["accuracy"], int(run.images.sum()))[0] > guess:
        return None
    return Advice(
        f"use a smaller learning rate than {run.learning_rate:g}: after {len(run.epochs)} epochs it is no better than "
        "guessing, even on the images that it learned from",
        run.command(learning_rate=_smaller_rate(run)),
    )


def too_few_steps(facts: Facts) -> Advice | None:
    """A network that starts from nothing was given fewer steps than any gets where nothing is asked for."""
    run = facts.training
    if not run or run.pretrained or run.steps >= LEAST_STEPS or not _has_room(facts):
        return None
    if better := not_pretrained(facts):
        return better  # it needs far fewer
    limit = run.config.time_limit
    longer = limit and limit * max(2, round(LEAST_STEPS / max(1, run.steps)))
    return Advice(
        f"train longer: a network that starts from nothing needs at least {LEAST_STEPS} steps, and had {run.steps}",
        run.command(epochs=None, batch_size=None, time_limit=longer),
    )


def swapped_classes(facts: Facts) -> Advice | None:
    """Two classes, each of which is mostly taken for the other."""
    confusion, answers = facts.test.confusion, facts.test.confusion.argmax(1)
    images = confusion.sum(1)
    for one, other in enumerate(answers):
        there, back = (Share(int(confusion[a, b]), int(images[a])) for a, b in ((one, other), (other, one)))
        if one < other and min(there.interval[0], back.interval[0]) > 0.5:
            return Advice(
                f"look whether the labels of {facts.class_names[one]} and {facts.class_names[other]} are swapped among "
                f"the training or the test images: {there.count} of {there.images} and {back.count} of {back.images} "
                "are taken for the other",
                facts.inspect,
            )
    return None


def nothing_holds(facts: Facts) -> Advice | None:
    """No better than guessing, and there are test images enough to say so."""
    low, high = facts.test.accuracy_interval
    if _verdict(facts)[0] != "bad" or high - low > 2 * WIDE:
        return None
    return Advice(
        "look whether the labels fit the images: what it learned does not hold for the test images", facts.inspect
    )


def spoiled_by_training(facts: Facts) -> Advice | None:
    """Each epoch left a pretrained network worse than it was before the first, beyond chance."""
    run = facts.training
    if not run or not facts.val or not run.epochs or run.best["epoch"] >= 1:
        return None
    head = Share.of(run.best["val_accuracy"], facts.val.images)
    after = Share.of(max(entry["val_accuracy"] for entry in run.epochs), facts.val.images)
    if not _surely_less(after, head):
        return None
    return Advice(
        f"use a smaller learning rate than {run.learning_rate:g}: before the first epoch {in_100(head.share)} in 100 "
        f"validation images were named right, and at most {in_100(after.share)} after one: those were not kept",
        run.command(learning_rate=_smaller_rate(run)),
    )


def not_pretrained(facts: Facts) -> Advice | None:
    """It started from nothing where `--model auto` does not."""
    run = facts.training
    if not run or run.pretrained or not run.auto_is_pretrained or not _has_room(facts):
        return None
    return Advice(
        "use --model auto: its network has learned from a million photos before, and this one started from nothing",
        run.command(model="auto", weights="auto", **dict.fromkeys(OF_A_MODEL)),
    )


def head_alone(facts: Facts) -> Advice | None:
    """`--fine-tune none` trained the last layer of a pretrained network only."""
    run = facts.training
    if not run or run.config.fine_tune != "none" or not run.pretrained or not _has_room(facts):
        return None
    return Advice(
        "train the whole network: with --fine-tune none its last layer alone has learned from your images",
        run.command(fine_tune="auto"),
    )


def limited(facts: Facts) -> Advice | None:
    """`--limit` left training images out."""
    run = facts.training
    if not run or not run.limited or not _has_room(facts):
        return None
    return Advice(f"use all images: --limit left {run.limited:,} training images out", run.command(limit=None))


def wrong_labels(facts: Facts) -> Advice | None:
    """Many training images look like another class; or many mistakes do, and the model is good enough to tell."""
    run = facts.training
    found = run.wrong_labels if run else None
    if found and found.count >= max(WRONG_LABELS, ROOM * found.images):
        return Advice(
            f"look for wrong labels: {found.count} of {found.images} training and validation images look like another "
            "class; the page shows them, and makes a table without them",
            f"{facts.inspect} --page page.html",
        )
    test, count = facts.test, facts.mislabelled
    mistakes = test.images - int(np.trace(test.confusion))
    if count < max(WRONG_LABELS, ROOM * test.images) or mistakes - count > OWN_MISTAKES * test.images:
        return None
    return Advice(
        f"look for wrong labels among the report's worst mistakes: of {mistakes}, {count} have a label that the model "
        "finds all but impossible",
        facts.inspect,
    )


def cut_short(facts: Facts) -> Advice | None:
    """The time limit ended the training before the network had seen every image."""
    run = facts.training
    if not run or run.end != "no time" or run.steps >= run.steps_per_epoch or not _has_room(facts):
        return None
    limit, seen = run.config.time_limit, in_100(run.steps / run.steps_per_epoch)
    return Advice(
        f"train longer: there was time for {seen} in 100 of the training images, once",
        run.command(time_limit=limit and 2 * limit),
    )


def still_rising(facts: Facts) -> Advice | None:
    """The last epoch was the best, and the validation loss fell until then."""
    run = facts.training
    if not run or run.end == "no better" or len(run.history) < 2 or cut_short(facts):
        return None
    last, earlier = run.history[-1], run.history[-1 - max(1, len(run.history) // 4)]
    fallen = 1 - last["val_loss"] / earlier["val_loss"]
    if run.best is not last or fallen < STILL_FALLING or 1 - last["val_accuracy"] < ROOM:
        return None
    limit = run.config.time_limit
    epochs = None if run.end == "no time" else 2 * len(run.epochs)
    return Advice(
        "train longer: the last epoch was the best, and the validation loss was still falling "
        f"({earlier['val_loss']:.2f} {_when(earlier)}, {last['val_loss']:.2f} at the end)",
        run.command(time_limit=limit and 2 * limit, epochs=epochs or run.config.epochs),
    )


def test_below_validation(facts: Facts) -> Advice | None:
    """More mistakes on test than on validation images, beyond chance."""
    val = _clearly_above_test(facts)
    if not val:
        return None
    return Advice(
        f"add images like the test images to the training images: of those {in_100(facts.test.accuracy)} in 100 are "
        f"named right, of the validation images {in_100(val.share)}; another camera, place or time?",
        facts.inspect,
    )


def unbalanced(facts: Facts) -> Advice | None:
    """Classes with few training images are found less often than the others, beyond chance."""
    run = facts.training
    if not run or run.config.class_weights != "none":
        return None
    rare = UNBALANCED * run.images < run.images.max()
    found, others = _found(facts.test, rare), _found(facts.test, ~rare)
    if not _surely_less(found, others):
        return None
    return Advice(
        f"weigh the classes alike: of the test images of {_listed(facts.class_names, rare)}, with few training images, "
        f"{in_100(found.share)} in 100 are found, of the others {in_100(others.share)}",
        run.command(class_weights="balanced"),
    )


def few_images(facts: Facts) -> Advice | None:
    """A class has few training images, and there are mistakes to mend."""
    run = facts.training
    if not run or not _has_room(facts) or run.images.min() >= ENOUGH_IMAGES:
        return None
    if run.curve and run.curve.flat and UNBALANCED * run.images.min() >= run.images.max():
        return None  # it tells of all classes together: nothing of a rare one
    names, fewest = _listed(facts.class_names, run.images < ENOUGH_IMAGES), int(run.images.argmin())
    better = run.curve.in_words if run.curve and run.curve.rises else f"{ENOUGH_IMAGES} of a class are far better"
    return Advice(
        f"add images of {names}: {facts.class_names[fewest]} has {run.images[fewest]} to learn from, and {better}; "
        "then the same again",
        run.command(),
    )


def more_images(facts: Facts) -> Advice | None:
    """There are enough of each class, and the measured curve still rises; or it does not."""
    run = facts.training
    if not run or not run.curve or not _has_room(facts) or few_images(facts):
        return None
    if run.curve.rises:
        return Advice(f"add images: {run.curve.in_words}; then the same again", run.command())
    if run.curve.flat:
        return Advice(f"look at the mistakes rather than for more images: {run.curve.in_words}", facts.inspect)
    return None


def by_heart(facts: Facts) -> Advice | None:
    """It names its training images far better than the validation images."""
    run = facts.training
    if not run or not facts.val or not _has_room(facts) or few_images(facts) or more_images(facts):
        return None
    learnt = Share.of(run.best["accuracy"], int(run.images.sum()))
    judged = Share.of(run.best["val_accuracy"], facts.val.images)
    if 1 - judged.share < BY_HEART * (1 - learnt.share) or not _surely_less(judged, learnt):
        return None
    text = (
        f"add images, as it knows those that it learned from by heart: {in_100(learnt.share)} in 100 of them are named "
        f"right, and {in_100(judged.share)} of the validation images"
    )
    if run.curve and run.curve.doubling:
        text += f"; {run.curve.outlook}"
    if run.pretrained or run.config.augment == "strong":  # `auto` is strong for a pretrained network
        return Advice(f"{text}; then the same again", run.command())
    return Advice(f"{text}; without more, stronger changes to them may do a little", run.command(augment="strong"))


def confused_classes(facts: Facts) -> Advice | None:
    """One pair of three or more classes makes a large part of the mistakes, beyond chance."""
    from scipy.stats import binomtest

    pairs = np.triu(facts.test.confusion + facts.test.confusion.T, 1)
    one, other = np.unravel_index(pairs.argmax(), pairs.shape)
    mistakes, count, kinds = int(pairs.sum()), int(pairs[one, other]), len(pairs) * (len(pairs) - 1) // 2
    if count < max(CONFUSED_IMAGES, CONFUSED_SHARE * mistakes):
        return None
    if binomtest(count, mistakes, 1 / kinds, alternative="greater").pvalue > CHANCE / kinds:
        return None
    first, second = facts.class_names[int(one)], facts.class_names[int(other)]
    return Advice(
        f"look whether you can tell {first} from {second}, and add images of both: {count} of {mistakes} mistakes take "
        "one for the other",
        facts.inspect,
    )


def stopped_early(facts: Facts) -> Advice | None:
    """Validation no longer improved."""
    run = facts.training
    if not run or run.end != "no better" or not _has_room(facts):
        return None
    best = f"in epoch {run.best['epoch']:.0f}" if run.best["epoch"] else "before the first"
    return Advice(
        f"more epochs do not help: validation was best {best} of {len(run.epochs)} epochs; another learning rate may",
        run.command(learning_rate=_rounded(run.learning_rate / 3)),
    )


def unreadable_files(facts: Facts) -> Advice | None:
    """Files that cannot be read are a part of the data that counts."""
    run = facts.training
    if not run or run.unreadable < max(1, UNREADABLE_SHARE * run.images.sum()):
        return None
    return Advice(
        f"repair or delete {run.unreadable} files: they cannot be read as images, and were left out", facts.inspect
    )


def few_test_images(facts: Facts) -> Advice | None:
    """The accuracy is known roughly only."""
    low, high = facts.test.accuracy_interval
    if high - low <= 2 * WIDE or not facts.training:
        return None
    return Advice(
        f"add images: {FEW_TEST_IMAGES} test images tell the accuracy to within 10 points, and there are "
        f"{facts.test.images}; then the same again",
        facts.training.command(),
    )


Rule = Callable[[Facts], Advice | None]
# Where one of these speaks, what the RULES look at follows from it.
CAUSES: tuple[Rule, ...] = (learned_nothing, too_few_steps, swapped_classes)
RULES: tuple[Rule, ...] = (
    nothing_holds,
    spoiled_by_training,
    not_pretrained,
    head_alone,
    limited,
    wrong_labels,
    cut_short,
    still_rising,
    test_below_validation,
    unbalanced,
    few_images,
    more_images,
    by_heart,
    confused_classes,
    stopped_early,
    unreadable_files,
    few_test_images,
)


def _surely_less(one: Share, other: Share) -> bool:
    """Whether `one` is the smaller share beyond chance."""
    return one.interval[1] < other.interval[0]


def _found(test: Evaluation, classes: NDArray[np.bool_] | int) -> Share:
    """Of the test images of some classes (a mask [K], or an index), how many are named right."""
    right, images = np.diag(test.confusion)[classes], test.confusion.sum(1)[classes]
    return Share(int(right.sum()), int(images.sum()))


def _hardly_found(test: Evaluation) -> list[int]:
    """The classes, the worst first, that are found less than half as often as an image in general, beyond chance."""
    from scipy.stats import binomtest

    classes = len(test.recall)
    missed = []
    for index in range(classes):
        found = _found(test, index)
        if (
            found.images
            and binomtest(found.count, found.images, test.accuracy / 2, alternative="less").pvalue < CHANCE / classes
        ):
            missed.append(index)
    return sorted(missed, key=lambda index: test.recall[index])


def _clearly_above_test(facts: Facts) -> Share | None:
    """The validation images named right, where those are clearly more than of the test images."""
    val, test = facts.val, Share.of(facts.test.accuracy, facts.test.images)
    if val and 1 - test.share > HALF_AGAIN * (1 - val.share) and _surely_less(test, val):
        return val
    return None


def _smaller_rate(run: Training) -> float | None:
    """A tenth, or the network's own where that is smaller still: None, which asks for it."""
    tenth = _rounded(run.learning_rate / 10)
    return tenth if tenth < run.usual_learning_rate else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def _has_room(facts: Facts) -> bool:
    return 1 - facts.test.accuracy >= ROOM


def _listed(labels: Sequence[str], which: NDArray[np.bool_]) -> str:
    """`hat`, `hat and skirt`, or `hat, skirt and 3 more`."""
    names = [label for label, chosen in zip(labels, which, strict=True) if chosen]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
