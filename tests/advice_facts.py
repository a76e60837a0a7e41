"""Facts about a model and a run without faults, for the tests of the advice; a test changes what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.config import FitConfig
from trainer.reporting.advice import Facts, Judgement, Proportion, TrainingFacts, judge
from trainer.reporting.metrics import Evaluation, evaluate

CLASS_NAMES = ["hat", "shoe", "shirt", "skirt"]
INSPECT = "trainer data inspect folder:pets"
EVEN = [[48, 1, 1, 0], [1, 48, 0, 1], [0, 1, 47, 2], [2, 0, 1, 47]]  # 190 of 200 correct, mistakes without a pattern
MIXED = [[40, 3, 3, 4], [3, 40, 4, 3], [3, 4, 40, 3], [4, 3, 3, 40]]  # 160 of 200 correct, mistakes without a pattern


def make_evaluation(confusion: Sequence[Sequence[int]]) -> Evaluation:
    """The evaluation of certain predictions with this `confusion` matrix [K,K]."""
    counts = np.array(confusion)
    truth, predicted = (
        np.repeat(index, counts.ravel()).astype(np.int32) for index in np.indices(counts.shape).reshape(2, -1)
    )
    return evaluate(truth, np.eye(len(counts), dtype=np.float32)[predicted])


def make_history(*accuracies: float, training: float = 0.95, loss: float = 0.1) -> list[dict[str, float]]:
    """A history with these validation accuracies and a constant validation loss."""
    return [
        {"epoch": epoch, "loss": 0.1, "accuracy": training, "val_loss": loss, "val_accuracy": accuracy}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def with_head(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The history with epochs from 0 on: its first entry is the head of a pretrained network."""
    return [entry | {"epoch": entry["epoch"] - 1} for entry in history]


def falling(*losses: float) -> list[dict[str, float]]:
    """A history with these validation losses, in which the validation accuracy rises to 0.9."""
    count = len(losses)
    history = make_history(*(0.9 - 0.01 * (count - epoch) for epoch in range(1, count + 1)))
    return [entry | {"val_loss": loss} for entry, loss in zip(history, losses, strict=True)]


def make_training(options: dict[str, Any] | None = None, **facts: Any) -> TrainingFacts:
    """A run without faults, with other command line `options` and `facts`."""
    sound = TrainingFacts(
        config=FitConfig("folder:pets", **(options or {})),
        learning_rate=0.001,
        usual_learning_rate=0.001,
        pretrained=True,
        auto_is_pretrained=True,
        history=make_history(0.94, 0.95, 0.95),
        steps=300,
        steps_per_epoch=100,
        end="all epochs",
        images_per_class=np.array([200, 200, 200, 200]),
        limited=0,
        unreadable=0,
        curve=None,
    )
    return dataclasses.replace(sound, **facts)


def judge_model(confusion: Sequence[Sequence[int]] = EVEN, run: TrainingFacts | None = None, **facts: Any) -> Judgement:
    """The judgement of a model with this confusion matrix, from a sound run and other `facts`."""
    test = make_evaluation(confusion)
    run = run or make_training()
    run = dataclasses.replace(run, images_per_class=run.images_per_class[: len(confusion)])
    val = Proportion.of(test.accuracy, 200)
    sound = Facts(CLASS_NAMES[: len(confusion)], test, True, val, 0, INSPECT, run)
    return judge(dataclasses.replace(sound, **facts))


def advice(*arguments: Any, **facts: Any) -> list[tuple[str, str]]:
    """The text of each piece of advice, and its command's changed options."""
    found = judge_model(*arguments, **facts).advice
    return [(piece.text, piece.command.removeprefix("trainer fit --dataset=folder:pets")) for piece in found]


def assert_only_advice(expected: Sequence[str], command: str, *arguments: Any, **facts: Any) -> None:
    """There is one piece of advice; its text has the `expected` parts, its command is `command`."""
    ((text, found),) = advice(*arguments, **facts)
    for part in expected:
        assert part in text, text
    assert found == command
