"""A linear head on features: multinomial logistic regression, its weight decay chosen on validation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("trainer")

# The inverse of the weight decay on standardised features, from strong to weak. For 3,000 pictures of ten classes the
# best lies within; for a few hundred the loss falls a little beyond, and the accuracy does not rise.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MAX_ITERATIONS = 200
TOLERANCE = 1e-3
NEVER = -100.0  # the bias of a class that is never the answer


@dataclass(frozen=True)
class Head:
    """A last layer: features float32 [N,F] @ kernel + bias → logits [N,K]."""

    kernel: NDArray[np.float32]  # [F,K]
    bias: NDArray[np.float32]  # [K]
    strength: float  # the inverse of the weight decay that it was fitted with

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [N,K]."""
        logits = features @ self.kernel + self.bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def fit_head(
    train: tuple[NDArray[np.float32], NDArray[np.int32]],
    val: tuple[NDArray[np.float32], NDArray[np.int32]],
    classes: int,
    *,
    balanced: bool = False,
    check_interrupted: Callable[[], None] = lambda: None,
) -> Head:
    """The head with the smallest loss on `val`; each is (features float32 [N,F], labels int32 [N] of 0..classes-1).

    `balanced` weighs the classes alike. A class without training pictures is never the answer. `check_interrupted`
    is called before each weight decay that is tried, and may raise.
    """
    if len(np.unique(train[1])) == 1:
        check_interrupted()
        return fit_at(STRENGTHS[0], train, classes)
    best, best_loss = None, np.inf
    for strength in STRENGTHS:
        check_interrupted()
        head = fit_at(strength, train, classes, balanced=balanced)
        chosen = head.probabilities(val[0])[np.arange(len(val[1])), val[1]]
        loss = float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())
        log.debug("head: strength %g, validation loss %.4f", strength, loss)
        if loss > best_loss:
            break  # weaker ones are worse and worse
        best, best_loss = head, loss
    assert best is not None
    return best


def fit_at(
    strength: float, train: tuple[NDArray[np.float32], NDArray[np.int32]], classes: int, *, balanced: bool = False
) -> Head:
    """The head of one weight decay; the rest is as `fit_head` has it."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features, labels = train
    if len(present := np.unique(labels)) == 1:  # nothing to tell apart, and scikit-learn refuses it
        return _answer_always(present[0], features.shape[1], classes, strength)
    mean = features.mean(0)
    scale = 1 / (features.std(0) + 1e-6)
    regression = LogisticRegression(
        C=strength, max_iter=MAX_ITERATIONS, tol=TOLERANCE, class_weight="balanced" if balanced else None
    )
    # A product of so narrow matrices gains nothing by threads, and beside other work each waits for the slowest: 3,068
    # pictures take 0.3 s in one thread and 2 to 7 in two, and 36,816 take 2.3 and 4.3 to 8.
    with threadpool_limits(1):
        regression.fit((features - mean) * scale, labels)
    kernel, bias = _fold(regression.coef_, regression.intercept_, regression.classes_, classes, mean, scale)
    return Head(kernel, bias, strength)


def _answer_always(label: np.int32, features: int, classes: int, strength: float) -> Head:
    bias = np.full(classes, NEVER, np.float32)
    bias[label] = 0
    return Head(np.zeros((features, classes), np.float32), bias, strength)


def _fold(
    coefficients: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    present: NDArray[np.int32],
    classes: int,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """scikit-learn's answer as the kernel and bias of a layer for features that are not standardised."""
    if len(present) == 2:  # one row, for the second of two classes
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    kernel = np.zeros((len(mean), classes), np.float32)
    bias = np.full(classes, NEVER, np.float32)
    kernel[:, present] = (coefficients * scale).T
    bias[present] = intercepts - (coefficients * scale) @ mean
    return kernel, bias
