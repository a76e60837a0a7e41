"""Linear probe: multinomial logistic regression on features; its regularization is chosen on validation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("trainer")

Labelled = tuple[NDArray[np.float32], NDArray[np.int32]]  # features [N,F], labels [N] of 0..classes-1

# scikit-learn's C, the inverse regularization strength, on standardised features; strong regularization first. For
# 3,000 images of ten classes the best lies within; for a few hundred the loss falls a little beyond, and the accuracy
# does not rise.
C_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MAX_ITERATIONS = 200
TOLERANCE = 1e-3
NEVER_PREDICTED = -100.0  # the bias of a class without training images


@dataclass(frozen=True)
class LinearProbe:
    """A last layer: features float32 [N,F] @ kernel + bias → logits [N,K]."""

    kernel: NDArray[np.float32]  # [F,K]
    bias: NDArray[np.float32]  # [K]
    c: float  # scikit-learn's C that it was fitted with

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features float32 [N,F] → float32 [N,K]."""
        logits = features @ self.kernel + self.bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def fit_linear_probe(
    train: Labelled,
    val: Labelled,
    classes: int,
    *,
    balanced: bool = False,
    check_interrupted: Callable[[], None] = lambda: None,
) -> LinearProbe:
    """Fit on `train`; keep the C of C_GRID with the smallest loss on `val`.

    `balanced` gives all classes the same weight. A class without training images is never predicted.
    `check_interrupted` is called before each C, and may raise.
    """
    if len(np.unique(train[1])) == 1:
        check_interrupted()
        return fit_with_c(C_GRID[0], train, classes)
    best, best_loss = None, np.inf
    for c in C_GRID:
        check_interrupted()
        probe = fit_with_c(c, train, classes, balanced=balanced)
        of_label = probe.probabilities(val[0])[np.arange(len(val[1])), val[1]]
        loss = float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean())
        log.debug("linear probe: C %g, validation loss %.4f", c, loss)
        if loss > best_loss:
            break  # weaker regularization only gets worse from here
        best, best_loss = probe, loss
    assert best is not None
    return best


def fit_with_c(c: float, train: Labelled, classes: int, *, balanced: bool = False) -> LinearProbe:
    """Fit on `train` with one value of C; see `fit_linear_probe`."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features, labels = train
    if len(present := np.unique(labels)) == 1:  # scikit-learn refuses a single class
        return _constant_probe(present[0], features.shape[1], classes, c)
    mean = features.mean(0)
    scale = 1 / (features.std(0) + 1e-6)
    regression = LogisticRegression(
        C=c, max_iter=MAX_ITERATIONS, tol=TOLERANCE, class_weight="balanced" if balanced else None
    )
    # Threads gain nothing for matrices this narrow, and wait for each other beside other work: 3,068 images take 0.3 s
    # in one thread and 2 to 7 s in two; 36,816 take 2.3 s and 4.3 to 8 s.
    with threadpool_limits(1):
        regression.fit((features - mean) * scale, labels)
    kernel, bias = _fold(regression.coef_, regression.intercept_, regression.classes_, classes, mean, scale)
    return LinearProbe(kernel, bias, c)


def _constant_probe(label: np.int32, features: int, classes: int, c: float) -> LinearProbe:
    bias = np.full(classes, NEVER_PREDICTED, np.float32)
    bias[label] = 0
    return LinearProbe(np.zeros((features, classes), np.float32), bias, c)


def _fold(
    coefficients: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    present: NDArray[np.int32],
    classes: int,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias for raw features, from scikit-learn's coefficients for standardised ones."""
    if len(present) == 2:  # scikit-learn has one row then, for the second class
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    kernel = np.zeros((len(mean), classes), np.float32)
    bias = np.full(classes, NEVER_PREDICTED, np.float32)
    kernel[:, present] = (coefficients * scale).T
    bias[present] = intercepts - (coefficients * scale) @ mean
    return kernel, bias
