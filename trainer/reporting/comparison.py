"""Two classifiers on the same images: a paired test, and the classes that gain and lose.

One computation for `trainer compare` and for the decision whether a new version is promoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.reporting.metrics import SIGNIFICANCE


@dataclass(frozen=True)
class ClassChange:
    """Correct predictions of both classifiers for the images of one class."""

    name: str
    images: int
    a_correct: int
    b_correct: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """Classifiers A and B on the same N images, N ≥ 1, which neither learned from.

    The test is McNemar's ("Note on the sampling error of the difference between correlated proportions", 1947), exact
    and one-sided. Images that both get right, or both wrong, say nothing about which is better; of the others, each is
    right for half if they are equally good.
    """

    truth: NDArray[np.str_]  # [N] names of classes that both have
    a_correct: NDArray[np.bool_]  # [N]
    b_correct: NDArray[np.bool_]  # [N]

    @property
    def images(self) -> int:
        return len(self.truth)

    @property
    def a_accuracy(self) -> float:
        """0..1."""
        return float(self.a_correct.mean())

    @property
    def b_accuracy(self) -> float:
        """0..1."""
        return float(self.b_correct.mean())

    @property
    def only_a(self) -> NDArray[np.int64]:
        """Positions of the images that A alone gets right."""
        return np.flatnonzero(self.a_correct & ~self.b_correct)

    @property
    def only_b(self) -> NDArray[np.int64]:
        """Positions of the images that B alone gets right."""
        return np.flatnonzero(self.b_correct & ~self.a_correct)

    @cached_property
    def p_worse(self) -> float:
        """Probability that A alone is right at least this often, if both are equally good."""
        return _probability(len(self.only_a), len(self.only_b))

    @cached_property
    def p_better(self) -> float:
        """Probability that B alone is right at least this often, if both are equally good."""
        return _probability(len(self.only_b), len(self.only_a))

    @property
    def is_worse(self) -> bool:
        """Whether B is worse than A beyond chance."""
        return self.p_worse < SIGNIFICANCE

    @property
    def is_better(self) -> bool:
        """Whether B is better than A beyond chance."""
        return self.p_better < SIGNIFICANCE

    @property
    def verdict(self) -> Literal["worse", "better", "no difference shown"]:
        """B beside A."""
        if self.is_worse:
            return "worse"
        return "better" if self.is_better else "no difference shown"

    def classes(self) -> list[ClassChange]:
        """Every class that has images; the one in which B loses most first."""
        names, member = np.unique(self.truth, return_inverse=True)
        images, a, b = (
            np.bincount(member, weights, len(names)).astype(int) for weights in (None, self.a_correct, self.b_correct)
        )
        return [
            ClassChange(str(names[index]), int(images[index]), int(a[index]), int(b[index]))
            for index in np.argsort(b - a, kind="stable")
        ]


def compare(truth: NDArray[np.str_], a_predicted: NDArray[np.str_], b_predicted: NDArray[np.str_]) -> Comparison:
    """Compare the class names [N] that two classifiers predict for images of the classes `truth` [N]."""
    return Comparison(truth, a_predicted == truth, b_predicted == truth)


def _probability(more: int, fewer: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(more, more + fewer, alternative="greater").pvalue) if more + fewer else 1.0
