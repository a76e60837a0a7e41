"""Metrics of a classifier, over all examples: no batch is dropped or weighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES, Outputs
from trainer.artifact.prediction import DECIMALS, is_known

CALIBRATION_BINS = 15
UNCALIBRATED = 1.0  # temperature of a network whose probabilities are left as they are
SIGNIFICANCE = 0.05  # p-value of a binomial test, below which chance does not explain a difference
WELL_CALIBRATED = 0.03  # calibration error, up to which a probability can be taken at its word
IMPOSSIBLE = 0.1  # times the probability of a guess (1/K); a lower probability rules a class out
FEW_TEST_IMAGES = 100  # with fewer, accuracy is known to within 10 points at best, and calibration not at all


@dataclass(frozen=True)
class Evaluation:
    """Metrics of N predictions for K classes."""

    accuracy: float  # 0..1
    loss: float  # mean cross-entropy in nats
    confusion: NDArray[np.int64]  # [K,K]; rows: truth, columns: prediction
    precision: NDArray[np.float64]  # [K]; 0 for a class never predicted
    recall: NDArray[np.float64]  # [K]; 0 for a class without examples
    calibration_error: float  # 0..1, expected calibration error; see `evaluate`
    bin_counts: NDArray[np.int64]  # [CALIBRATION_BINS], by the probability of the prediction
    bin_confidence: NDArray[np.float64]  # mean probability in each bin; 0 where it is empty
    bin_accuracy: NDArray[np.float64]  # share of correct predictions in each bin; 0 where it is empty

    @property
    def images(self) -> int:
        """Number of examples, N."""
        return int(self.confusion.sum())

    @property
    def guess_accuracy(self) -> float:
        """Accuracy of always predicting the most frequent class, 0..1."""
        return float(self.confusion.sum(1).max() / self.images)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, 0..1."""
        return accuracy_interval(self.accuracy, self.images)

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """JSON values; the metrics of each class by its name."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "classes": {
                label: {"images": int(count), "precision": float(precision), "recall": float(recall)}
                for label, count, precision, recall in zip(
                    class_names, self.confusion.sum(1), self.precision, self.recall, strict=True
                )
            },
        }


class CalibrationBins(NamedTuple):
    """Predictions in CALIBRATION_BINS bins of equal width, by their probability."""

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]  # mean probability in each bin; 0 where it is empty
    accuracy: NDArray[np.float64]  # share of correct predictions in each bin; 0 where it is empty


@dataclass(frozen=True)
class Trust:
    """Calibration and selective-prediction metrics on images that the model has not seen."""

    temperature: float  # by which the logits are divided; UNCALIBRATED: they are not
    uncalibrated_error: float  # 0..1: the calibration error without the temperature
    threshold: float  # probability from which on a prediction counts as known, 0..1
    known_share: float  # of all images, 0..1
    known_accuracy: float | None  # of the known predictions, 0..1; None: there are none
    knows_novelty: bool  # whether the model also rejects out-of-distribution images as not known


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction."""

    name: str  # by which a person finds the image
    image: NDArray[np.uint8]  # [H,W,C]
    true: int
    predicted: int
    probability: float  # of the predicted class, 0..1
    saliency: NDArray[np.float32]  # [H,W], 0..1: evidence for the predicted class


def evaluate(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> Evaluation:
    """Metrics of probabilities float32 [N,K] against labels [N], N ≥ 1.

    The expected calibration error takes equal-width bins of the predicted probability (Guo et al., "On Calibration of
    Modern Neural Networks", 2017).
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confidence = np.nan_to_num(probabilities.max(1).astype(np.float64))  # values that are not finite show in the loss
    correct = predicted == labels
    # Without scikit-learn: importing it takes longer than evaluating a linear probe on cached features.
    confusion = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    true_probability = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    bins = calibration_bins(confidence, correct)
    return Evaluation(
        accuracy=float(correct.mean()),
        # A probability of zero has underflowed float32: its loss is large, not infinite.
        loss=float(0 - np.log(np.maximum(true_probability, np.finfo(np.float32).tiny)).mean()),  # never -0.0
        confusion=confusion,
        precision=_ratio(confusion.diagonal(), confusion.sum(0)),
        recall=_ratio(confusion.diagonal(), confusion.sum(1)),
        calibration_error=calibration_error(bins),
        bin_counts=bins.counts,
        bin_confidence=bins.confidence,
        bin_accuracy=bins.accuracy,
    )


def calibration_bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> CalibrationBins:
    """Bins of the probabilities [N] of predictions, 0..1, of which `correct` [N] are right."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    return CalibrationBins(
        counts,
        confidence=_ratio(np.bincount(bins, confidence, CALIBRATION_BINS), counts),
        accuracy=_ratio(np.bincount(bins, correct, CALIBRATION_BINS), counts),
    )


def calibration_error(bins: CalibrationBins) -> float:
    """Expected calibration error, 0..1."""
    return float((bins.counts * np.abs(bins.confidence - bins.accuracy)).sum() / bins.counts.sum())


def measure_trust(labels: NDArray[np.int32], outputs: Outputs, temperature: float, threshold: float) -> Trust:
    """Calibration and selective-prediction metrics of `outputs` for N images, against `labels` [N].

    The probabilities of `outputs` come from logits that were divided by `temperature`.
    """
    from scipy.special import softmax

    probabilities = outputs[PROBABILITIES]
    # The logits, except for a constant for each image, which softmax ignores.
    logits = temperature * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    accepted = is_known(probabilities.max(1).astype(np.float64).round(DECIMALS), outputs.get(OOD_SCORE), threshold)
    correct = probabilities.argmax(1) == labels
    return Trust(
        temperature=temperature,
        uncalibrated_error=evaluate(labels, softmax(logits, axis=1)).calibration_error,
        threshold=threshold,
        known_share=float(accepted.mean()),
        known_accuracy=float(correct[accepted].mean()) if accepted.any() else None,
        knows_novelty=OOD_SCORE in outputs,
    )


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """95 % confidence interval of an accuracy that was measured on `images` images, 0..1.

    (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.)
    """
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def may_be_guessing(interval: Sequence[float], guess_accuracy: float) -> bool:
    """Whether the confidence interval of an accuracy leaves room for a model that is no better than guessing."""
    return interval[0] <= guess_accuracy


def is_guessing(interval: Sequence[float], guess_accuracy: float) -> bool:
    """Whether a model is no better than guessing, as far as anybody can tell.

    The confidence interval of its accuracy contains that of guessing, and excludes that of a model that makes half as
    many mistakes. An interval that contains both, as that of 8 images may, shows neither.
    """
    return may_be_guessing(interval, guess_accuracy) and interval[1] < (1 + guess_accuracy) / 2


def most_confident_mistakes(
    labels: NDArray[np.int32], probabilities: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """Positions of the most confident mistakes, at most `count`, the worst first."""
    mistakes = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities.max(1)[mistakes], kind="stable")
    return mistakes[order[:count]]


def most_confused(evaluation: Evaluation, count: int) -> list[tuple[int, int, int, int]]:
    """At most `count` tuples (truth, wrong prediction, how often, of how many images), the most frequent first."""
    wrong = evaluation.confusion * ~np.eye(len(evaluation.confusion), dtype=bool)
    images = evaluation.confusion.sum(1)
    cells = [np.unravel_index(cell, wrong.shape) for cell in np.argsort(-wrong, axis=None, kind="stable")[:count]]
    return [
        (int(truth), int(predicted), int(wrong[truth, predicted]), int(images[truth]))
        for truth, predicted in cells
        if wrong[truth, predicted]
    ]


def count_test_label_issues(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> int:
    """Number of labels [N] that the model finds IMPOSSIBLE; 0 if its own probabilities [N,K] predict about as many.

    Some classes that a model rules out are true, by its own probabilities. More than that means that the model is
    overconfident, or that it is right and the labels are wrong.
    """
    from scipy.stats import binomtest

    impossible = probabilities < IMPOSSIBLE / probabilities.shape[1]
    found = int(impossible[np.arange(len(labels)), labels].sum())
    expected = float(np.where(impossible, probabilities, 0).sum(1).mean(dtype=np.float64))
    if not found:
        return 0
    return found if binomtest(found, len(labels), expected, alternative="greater").pvalue < SIGNIFICANCE else 0


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
