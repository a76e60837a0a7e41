from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from trainer.config import FitConfig
from trainer.reporting import metrics
from trainer.reporting.advice import Facts, Judgement, Share, Training, in_100, judge
from trainer.reporting.learning_curve import LearningCurve

LABELS = ["hat", "shoe", "shirt", "skirt"]
INSPECT = "trainer data inspect folder:pets"
EVEN = [[48, 1, 1, 0], [1, 48, 0, 1], [0, 1, 47, 2], [2, 0, 1, 47]]  # 190 of 200 right, and no pattern in the rest


def evaluation(confusion: Sequence[Sequence[int]]) -> metrics.Evaluation:
    """Of answers as the `confusion` [K,K] has them."""
    counts = np.array(confusion)
    truth, answers = (
        np.repeat(index, counts.ravel()).astype(np.int32) for index in np.indices(counts.shape).reshape(2, -1)
    )
    return metrics.evaluate(truth, np.eye(len(counts), dtype=np.float32)[answers])


def epochs(*accuracies: float, training: float = 0.95, loss: float = 0.1) -> list[dict[str, float]]:
    """A history of these validation accuracies; the validation loss stays at `loss`."""
    return [
        {"epoch": epoch, "loss": 0.1, "accuracy": training, "val_loss": loss, "val_accuracy": accuracy}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def falling(*losses: float) -> list[dict[str, float]]:
    """A history of these validation losses, in which the accuracy rises to 0.9."""
    count = len(losses)
    history = epochs(*(0.9 - 0.01 * (count - epoch) for epoch in range(1, count + 1)))
    return [entry | {"val_loss": loss} for entry, loss in zip(history, losses, strict=True)]


def training(options: dict[str, Any] | None = None, **facts: Any) -> Training:
    """A run without fault, with other command line `options` and `facts`."""
    sound = Training(
        config=FitConfig("folder:pets", **(options or {})),
        learning_rate=0.001,
        usual_learning_rate=0.001,
        pretrained=True,
        auto_is_pretrained=True,
        history=epochs(0.94, 0.95, 0.95),
        steps=300,
        steps_per_epoch=100,
        end="all epochs",
        images=np.array([200, 200, 200, 200]),
        limited=0,
        unreadable=0,
        curve=None,
    )
    return dataclasses.replace(sound, **facts)


def judged(confusion: Sequence[Sequence[int]] = EVEN, run: Training | None = None, **facts: Any) -> Judgement:
    test = evaluation(confusion)
    run = run or training()
    run = dataclasses.replace(run, images=run.images[: len(confusion)])
    sound = Facts(LABELS[: len(confusion)], test, True, Share.of(test.accuracy, 200), 0, INSPECT, run)
    return judge(dataclasses.replace(sound, **facts))


def advice(*arguments: Any, **facts: Any) -> list[tuple[str, str]]:
    """The pieces of advice: what stands before the first colon or comma, and the command."""
    found = judged(*arguments, **facts).advice
    return [(one.text, one.command.removeprefix("trainer fit --dataset=folder:pets")) for one in found]


@pytest.mark.parametrize(
    ("confusion", "facts", "verdict", "reason"),
    [
        (EVEN, {}, "good", "right 95 times in 100 on test images, and on others like these most likely 91 to 97 times; "
         "guessing would be right 25 times"),
        # 8 of 18 right where 6 are guessed.
        ([[3, 2, 1], [2, 3, 1], [2, 2, 2]], {}, "bad", "right 44 times in 100 on test images; naming the most frequent "
         "class each time would be right 33 times, and 18 test images do not show that the model does better"),
        # Right 90 times in 100, as always saying `hat` is.
        ([[90, 0], [10, 0]], {}, "bad", "would be right 90 times"),
        (EVEN, {"unseen": False}, "doubtful", "but it may have learned from these very images"),
        ([[40, 10], [10, 40]], {"val": Share(190, 200)}, "doubtful", "but 95 times on validation images: chance"),
        # The same shares of few images: chance may explain it.
        ([[16, 4], [4, 16]], {"val": Share(19, 20)}, "doubtful", "but 40 test images tell little: on others it may be "
         "right 65 to 90 times"),
        # Twice as many mistakes, of 10,000 images; but few.
        ([[4950, 50], [60, 4940]], {"val": Share(9920, 10_000)}, "good", "right 99 times in 100"),
        ([[90, 0, 0], [0, 90, 0], [12, 6, 2]], {}, "doubtful", "but shirt is hardly found (2 of 20)"),
        ([[90, 0, 0], [9, 1, 0], [8, 1, 1]], {}, "bad", "would be right 82 times"),
        ([[60, 0, 0], [18, 1, 1], [19, 0, 1]], {}, "bad", "would be right 60 times"),
        ([[70, 30], [30, 70]], {}, "doubtful", "but guessing is right 50 times, and it still makes over half of its"),
    ],
)  # fmt: skip
def test_the_verdict(confusion: list[list[int]], facts: dict[str, Any], verdict: str, reason: str) -> None:
    found = judged(confusion, **facts)
    assert found.verdict == verdict, found.reason
    assert reason in found.reason


def test_several_classes_that_are_hardly_found() -> None:
    reason = judged([[40, 0, 0, 0], [0, 40, 0, 0], [10, 10, 0, 0], [9, 10, 0, 1]]).reason
    assert "but shirt is hardly found (0 of 20), nor are 1 more classes" in reason


def test_times_in_100() -> None:
    assert [in_100(share) for share in (0, 0.001, 0.094, 0.5, 0.999, 1)] == [0, 1, 9, 50, 99, 100]


def test_two_ends_are_told_apart() -> None:
    assert "most likely 98.7 to 99.1 times; guessing" in judged([[4950, 50], [60, 4940]]).reason
    assert "most likely about 99.0 times; guessing" in judged([[495_000, 5000], [5000, 495_000]]).reason


def test_probabilities_that_are_off_are_mentioned() -> None:
    labels = np.arange(400, dtype=np.int32) % 2
    answers = np.where(np.arange(400) < 40, 1 - labels, labels)  # 90 in 100 are right

    def reason(probability: float, images: int = 400) -> str:
        probabilities = np.full((400, 2), 1 - probability, np.float32)
        probabilities[np.arange(400), answers] = probability
        test = metrics.evaluate(labels[400 - images :], probabilities[400 - images :])
        return judge(Facts(LABELS[:2], test, True, None, 0, INSPECT, None)).reason

    assert reason(0.99).endswith("; its probabilities are 9 points too high on average")
    assert reason(0.75).endswith("; its probabilities are 15 points too low on average")
    assert reason(0.91).endswith("; guessing would be right 50 times")

    # Half of the answers are too sure, the others not sure enough.
    mixed = np.where(np.arange(400) % 4 < 2, 0.99, 0.8)
    right = np.where(np.arange(400) % 4 < 2, np.arange(400) % 20 >= 4, True)
    answers = np.where(right, labels, 1 - labels)
    probabilities = np.stack([np.where(answers == one, mixed, 1 - mixed) for one in (0, 1)], 1).astype(np.float32)
    test = metrics.evaluate(labels, probabilities)
    said = judge(Facts(LABELS[:2], test, True, None, 0, INSPECT, None)).reason
    assert said.endswith("; its probabilities are off by 19 points on average")


def test_a_model_without_fault_gets_no_advice() -> None:
    assert advice() == []


def test_in_no_epoch_better_than_guessing() -> None:
    guessed = epochs(0.26, 0.25, 0.25, training=0.26)
    confusion = [[10, 0, 0, 0]] * 4
    rate = 0.3
    run = training({"learning_rate": rate}, learning_rate=rate, history=guessed)
    expected = "use a smaller learning rate than 0.3: after 3 epochs it is no better than guessing, even on the images "
    assert advice(confusion, run) == [(f"{expected}that it learned from", "")]  # the network's own
    # Already the network's own: a tenth.
    assert [command for _, command in advice(confusion, training(history=guessed))] == [" --learning-rate=0.0001"]
    # 220 of 800 may be chance, and 240 are not.
    assert advice(confusion, training(history=epochs(0.3, training=0.275)))[0][0].startswith("use a smaller")
    assert not advice(confusion, training(history=epochs(0.3, training=0.3)))[0][0].startswith("use a smaller")
    # Of so few steps nothing can be said.
    assert not advice(confusion, training(history=guessed, steps=20))[0][0].startswith("use a smaller")


MIXED = [[40, 3, 3, 4], [3, 40, 4, 3], [3, 4, 40, 3], [4, 3, 3, 40]]  # 160 of 200, and no pattern in the rest


def only(expected: str, command: str, *arguments: Any, **facts: Any) -> None:
    """The one piece of advice begins like this, and has this command."""
    ((text, found),) = advice(*arguments, **facts)
    assert text.startswith(expected), text
    assert found == command


def test_a_time_limit_within_the_first_epoch() -> None:
    short = {"steps": 8, "end": "no time", "history": epochs(0.8)}
    text, command = advice(MIXED, training({"time_limit": 240.0}, **short))[0]
    assert text == "train longer: there was time for 8 in 100 of the training images, once"
    assert command == " --time-limit=480s"
    whole = training({"time_limit": 240.0}, **short | {"steps": 100})
    assert not any("there was time" in text for text, _ in advice(MIXED, whole))


def test_too_few_steps() -> None:
    said = "train longer: a network that starts from nothing needs at least 200 steps, and had 12"
    scratch = {"steps": 12, "pretrained": False, "auto_is_pretrained": False}
    only(said, "", MIXED, training({"epochs": 3, "batch_size": 128}, **scratch))
    only(said, " --time-limit=1020s --dropout=0.1", MIXED, training({"time_limit": 60.0, "dropout": 0.1}, **scratch))
    assert advice(EVEN, training({"epochs": 3}, steps=12)) == []  # a pretrained network's head needs none
    ((text, _),) = advice(MIXED, training({"epochs": 3}, **scratch | {"auto_is_pretrained": True}))
    assert text.startswith("use --model auto")
    good = [[49, 1, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]
    assert advice(good, training({"epochs": 3}, **scratch)) == []


def test_two_classes_swapped() -> None:
    swapped = [[2, 48, 0, 0], [47, 2, 1, 0], [0, 0, 50, 0], [0, 1, 0, 49]]
    ((text, command),) = advice(swapped, training({"limit": 40}, limited=60))  # the rest follows from it
    assert text == (
        "look whether the labels of hat and shoe are swapped among the training or the test images: 48 of 50 and 47 of "
        "50 are taken for the other"
    )
    assert command == INSPECT
    # Of the others, one only is mostly taken for the other.
    assert "swapped" not in str(judged([[2, 48, 0, 0], [7, 42, 1, 0], [0, 0, 50, 0], [0, 1, 0, 49]]).advice)


def test_from_nothing_where_a_pretrained_network_would_do() -> None:
    options = {"model": "compact_resnet", "epochs": 30, "image_size": (64, 64), "seed": 3}
    scratch = training(options, pretrained=False)
    only("use --model auto: its network has learned from a million photos", " --seed=3", MIXED, scratch)
    assert advice(MIXED, training(options, pretrained=False, auto_is_pretrained=False)) == []


def test_training_that_spoils_a_pretrained_network() -> None:
    history = [entry | {"epoch": entry["epoch"] - 1} for entry in epochs(0.8, 0.1, 0.2)]
    run = training({"learning_rate": 0.3}, learning_rate=0.3, history=history, steps=36)
    said = "use a smaller learning rate than 0.3: before the first epoch 80 in 100 validation images were named right, "
    text, command = advice(MIXED, run, val=Share(160, 200))[0]
    assert text.startswith(f"{said}and at most 20 after one")
    assert command == ""
    slightly = [entry | {"epoch": entry["epoch"] - 1} for entry in epochs(0.8, 0.78)]
    assert "smaller" not in str(judged(MIXED, training(history=slightly), val=Share(160, 200)).advice)


def test_the_head_alone() -> None:
    only("train the whole network: with --fine-tune none its last", "", MIXED, training({"fine_tune": "none"}, steps=0))
    good = [[50, 0], [1, 49]]
    assert advice(good, training({"fine_tune": "none"}, steps=0)) == []


def test_images_left_out_by_limit() -> None:
    run = training({"limit": 800, "epochs": 9}, limited=1234)
    only("use all images: --limit left 1,234 training images out", " --epochs=9", MIXED, run)


def test_labels_that_are_likely_wrong() -> None:
    said = "look for wrong labels among the report's worst mistakes: of 10, 6 have a label that the model finds"
    only(said, INSPECT, EVEN, mislabelled=6)
    assert advice(EVEN, mislabelled=4) == []
    assert advice(MIXED, mislabelled=6) == []  # 34 mistakes of its own: it cannot tell


def test_training_labels_that_look_wrong() -> None:
    run = training(wrong_labels=Share(40, 900))
    only("look for wrong labels: 40 of 900 training and validation", f"{INSPECT} --page page.html", EVEN, run)
    assert advice(EVEN, training(wrong_labels=Share(10, 900))) == []  # some are in every collection


def test_validation_still_rising() -> None:
    said = "train longer: the last epoch was the best, and the validation loss was still falling (0.60 in epoch 3, 0.50"
    history = falling(0.9, 0.7, 0.6, 0.5)
    only(said, " --epochs=8", MIXED, training(history=history))
    only(said, " --time-limit=120s", MIXED, training({"time_limit": 60.0}, history=history, end="no time"))
    both = training({"time_limit": 60.0, "epochs": 4}, history=history)
    only(said, " --time-limit=120s --epochs=8", MIXED, both)
    assert advice(MIXED, training(history=falling(0.9, 0.7, 0.51, 0.5))) == []  # by less than an epoch's noise
    assert advice(MIXED, training(history=falling(0.9, 0.7, 0.6, 0.7))) == []
    assert advice(MIXED, training(history=[*history[:-1], history[-1] | {"val_accuracy": 0.5}])) == []
    stopped = advice(MIXED, training(history=history, end="no better"))
    assert [text[:24] for text, _ in stopped] == ["more epochs do not help:"]  # never both


def test_test_images_unlike_the_others() -> None:
    said = (
        "add images like the test images to the training images: of those 80 in 100 are named right, of the validation "
    )
    only(f"{said}images 95; another", INSPECT, MIXED, val=Share(190, 200))
    assert advice(MIXED, val=Share(172, 200)) == []  # 86: chance may explain it
    assert advice(MIXED, val=None) == []


def test_rare_classes_are_found_less_often() -> None:
    confusion = [[49, 1, 0, 0], [1, 49, 0, 0], [5, 4, 11, 0], [4, 5, 0, 11]]
    rare = np.array([600, 600, 60, 60])
    text, command = advice(confusion, training(images=rare))[0]
    assert text == (
        "weigh the classes alike: of the test images of shirt and skirt, with few training images, 55 in 100 are "
        "found, of the others 98"
    )
    assert command == " --class-weights=balanced"
    weighed = training({"class_weights": "balanced"}, images=rare)
    assert "weigh" not in str(judged(confusion, weighed).advice)
    assert advice(confusion, training(images=np.array([100, 100, 60, 60]))) == []
    assert advice(EVEN, training(images=rare)) == []


def test_few_images_of_a_class() -> None:
    said = "add images of hat, shirt and skirt: shirt has 8 to learn from, and 50 of a class are far better"
    only(said, " --seed=3", MIXED, training({"seed": 3}, images=np.array([20, 90, 8, 49])))
    assert advice([*EVEN[:2], [0, 0, 50, 0], [0, 0, 0, 50]], training(images=np.full(4, 8)))[0][0].startswith(
        "add images"
    )
    assert advice(MIXED, training(images=np.full(4, 50))) == []


def curve(*right: int, images: int = 2000) -> LearningCurve:
    """So many of `images` validation images are named right with 200, 400, 600 and 800 training images; in 2 draws."""
    each = np.arange(images) < np.array(right)[:, None, None]
    return LearningCurve((200, 400, 600, 800), np.repeat(each, 2, axis=1))


RISING = curve(1400, 1520, 1568, 1616)
FLAT = curve(1600, 1604, 1602, 1604)
UNCLEAR = curve(80, 81, 80, 82, images=120)


def test_what_more_images_would_bring() -> None:
    measured = "with 400 of the 800 training images 76.0 % of the validation images are named right, with all of them "
    said = f"add images: {measured}80.8 %; twice as many would likely bring "
    only(said, " --seed=3", MIXED, training({"seed": 3}, curve=RISING))
    assert advice([[50, 0], [1, 49]], training(curve=RISING)) == []
    said = "look at the mistakes rather than for more images: with 400 of the 800 training images 80.2 % of"
    only(said, INSPECT, MIXED, training(curve=FLAT))
    assert advice(MIXED, training(curve=UNCLEAR)) == []
    # Classes of few images.
    few = training(curve=RISING, images=np.array([20, 90, 8, 49]))
    only(f"add images of hat, shirt and skirt: shirt has 8 to learn from, and {measured}80.8", "", MIXED, few)
    only(
        "add images of hat, shirt and skirt: shirt has 8 to learn from, and 50 of a class are",
        "",
        MIXED,
        training(curve=UNCLEAR, images=np.array([20, 90, 8, 49])),
    )
    only("look at the mistakes rather", INSPECT, MIXED, training(curve=FLAT, images=np.full(4, 40)))
    # Of all classes together it says nothing of a rare one.
    only("add images of shirt: shirt has 8", "", MIXED, training(curve=FLAT, images=np.array([90, 90, 8, 90])))
    # Learned by heart.
    history = epochs(0.7, 0.8, 0.75, training=0.98, loss=0.6)
    val = {"val": Share(160, 200)}
    only("add images: with 400", "", MIXED, training(history=history, curve=RISING), **val)
    only("look at the mistakes", INSPECT, MIXED, training(history=history, curve=FLAT), **val)
    ((text, _),) = advice(MIXED, training(history=history, curve=UNCLEAR), **val)
    assert text.startswith("add images, as it knows those that it learned from by heart: 98 in 100")
    assert text.endswith("points more, and perhaps none; then the same again")


def test_training_far_above_validation() -> None:
    said = "add images, as it knows those that it learned from by heart: 98 in 100 of them are named right, and 80 of "
    history = epochs(0.7, 0.8, 0.75, training=0.98, loss=0.6)
    val = {"val": Share(160, 200)}
    only(f"{said}the validation images; then the same", "", MIXED, training(history=history), **val)
    scratch = training(history=history, pretrained=False, auto_is_pretrained=False)
    only(f"{said}the validation images; without more, stronger changes", " --augment=strong", MIXED, scratch, **val)
    # 13 in 100 wrong, and 20: augmented images are harder, and the difference is usual.
    assert advice(MIXED, training(history=epochs(0.8, training=0.87)), **val) == []
    assert advice(MIXED, training(history=epochs(0.9, training=0.98)), val=Share(9, 10)) == []


def test_two_classes_make_the_mistakes() -> None:
    confusion = [[48, 1, 1, 0], [1, 48, 0, 1], [0, 1, 35, 14], [2, 0, 9, 39]]
    said = (
        "look whether you can tell shirt from skirt, and add images of both: 23 of 30 mistakes take one for the other"
    )
    only(said, INSPECT, confusion)
    assert advice(MIXED) == []
    assert advice([[95, 5], [9, 91]]) == []  # of two classes there is one pair


def test_a_run_that_stopped_early() -> None:
    said = "more epochs do not help: validation was best in epoch 2 of 3 epochs; another learning rate may"
    history = epochs(0.7, 0.8, 0.75, training=0.8)
    only(said, " --learning-rate=0.00033", MIXED, training(history=history, end="no better"))
    head = [history[0] | {"epoch": 0, "val_accuracy": 0.82}, *history]
    ((text, _),) = advice(MIXED, training(history=head, end="no better"))
    assert "validation was best before the first of 3 epochs" in text
    assert advice([[50, 0], [1, 49]], training(end="no better")) == []


def test_unreadable_files() -> None:
    only("repair or delete 8 files: they cannot be read as images", INSPECT, run=training(unreadable=8))
    assert advice(run=training(unreadable=7)) == []  # below a hundredth


def test_few_test_images() -> None:
    said = "add images: 100 test images tell the accuracy to within 10 points, and there are 20; then the same again"
    only(said, " --seed=3", [[9, 1], [1, 9]], training({"seed": 3}))
    assert advice([[9, 1], [1, 9]], run=None, training=None) == []  # evaluate: it is the user's own choice


def test_nothing_that_was_learned_holds() -> None:
    only("look whether the labels fit the images: what it learned does not hold", INSPECT, [[13, 12, 13, 12]] * 4)
    assert "labels fit" not in str(judged([[2, 1, 1, 1]] * 4).advice)  # too few to say so


def test_at_most_three() -> None:
    options = {"model": "compact_resnet", "limit": 40}
    run = training(options, pretrained=False, limited=900, images=np.full(4, 10), unreadable=9)
    assert [text.split(":")[0].split(" of ")[0] for text, _ in advice(MIXED, run)] == [
        "use --model auto",
        "use all images",
        "add images",
    ]


def test_every_command_can_be_parsed() -> None:
    """What is said in a command is a configuration that holds."""
    history = falling(0.9, 0.7, 0.6, 0.5)
    run = training({"time_limit": 90.0, "image_size": (32, 48), "name": "it"}, history=history, end="no time")
    ((_, command),) = advice(MIXED, run)
    assert command == " --time-limit=180s --image-size=32x48 --name=it"
    assert math.isclose(run.config.time_limit or 0, 90)
