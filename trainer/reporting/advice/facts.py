"""Input and output of the advice rules: facts about a model and its training, and a piece of advice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig
from trainer.option_fields import options
from trainer.reporting.learning_curve import LearningCurve
from trainer.reporting.metrics import Evaluation, accuracy_interval
from trainer.text import shell_command

MIN_MISTAKES = 0.02  # 0..1; with fewer mistakes no rule proposes better training: labels are rarely more accurate


@dataclass(frozen=True)
class Proportion:
    """`count` of `total` images."""

    count: int
    total: int

    @classmethod
    def of(cls, share: float, total: int) -> Proportion:
        """The proportion of `total` images that is closest to `share`, 0..1."""
        return cls(round(share * total), total)

    @property
    def share(self) -> float:
        """0..1; 0 without images."""
        return self.count / max(1, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval, 0..1; (0, 1) without images."""
        return accuracy_interval(self.share, self.total) if self.total else (0.0, 1.0)

    def surely_below(self, other: Proportion) -> bool:
        """Whether this proportion is smaller than `other` beyond chance."""
        return self.interval[1] < other.interval[0]


@dataclass(frozen=True)
class TrainingFacts:
    """Facts about the run that trained a model."""

    config: FitConfig
    learning_rate: float  # the peak
    usual_learning_rate: float  # the architecture's default
    pretrained: bool
    auto_is_pretrained: bool  # whether `--model auto` would choose a pretrained network for these images
    history: Sequence[Mapping[str, float]]  # an entry for each epoch; epoch 0 is the head of a pretrained network
    steps: int  # completed
    steps_per_epoch: int
    end: Literal["all epochs", "no better", "no time"]  # why training ended
    images_per_class: NDArray[np.int64]  # [K], training images
    limited: int  # training images that --limit left out
    unreadable: int  # files
    curve: LearningCurve | None  # None: it was not measured
    label_issues: Proportion | None = None  # among training and validation images; None: not checked

    @property
    def images(self) -> int:
        """Number of training images."""
        return int(self.images_per_class.sum())

    @property
    def epochs(self) -> Sequence[Mapping[str, float]]:
        """The history without the entry of the head."""
        return [entry for entry in self.history if entry["epoch"] >= 1]

    @property
    def best(self) -> Mapping[str, float]:
        """The history's entry for the weights that are kept."""
        return max(self.history, key=lambda entry: (entry["val_accuracy"], -entry["val_loss"]))

    def command(self, **changes: Any) -> str:
        """The command for the same training with some options changed, each within its range."""
        for name, option in options(FitConfig).items():
            if changes.get(name) is not None and option.low is not None and option.high is not None:
                changes[name] = min(max(changes[name], option.low), option.high)
        return shell_command(dataclasses.replace(self.config, **changes).command())


@dataclass(frozen=True)
class Facts:
    """Facts about a model of K classes."""

    class_names: Sequence[str]  # [K]
    test: Evaluation
    unseen: bool  # whether the model is known to have trained on none of the test images
    val: Proportion | None  # correct predictions on validation images; None without any
    label_issues: int  # test images whose label is likely wrong
    inspect_command: str  # shows the images
    training: TrainingFacts | None  # None: the model was measured only

    @property
    def can_improve(self) -> bool:
        """Whether there are enough mistakes for better training to reduce them."""
        return 1 - self.test.accuracy >= MIN_MISTAKES


@dataclass(frozen=True)
class Advice:
    """One thing to do: a sentence, and the command that does it or follows it."""

    text: str
    command: str
