"""Metrics of a classifier. Sums over all examples are divided by the examples seen: nothing is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import NOVELTY, PROBABILITIES, Outputs
from trainer.artifact.prediction import DECIMALS, known

CALIBRATION_BINS = 15
CHANCE = 0.05  # of a binomial test, below which something is not put down to it
IMPOSSIBLE = 0.1  # times the probability of a guess
FEW_TEST_IMAGES = 100  # with fewer, accuracy is known to within 10 points at best, and calibration not at all


@dataclass(frozen=True)
class Evaluation:
    """Predictions compared with the truth, over N examples of K classes."""

    accuracy: float  # 0..1
    loss: float  # mean cross-entropy in nats
    confusion: NDArray[np.int64]  # [K,K]; rows: truth, columns: prediction
    precision: NDArray[np.float64]  # [K]; 0 for a class never predicted
    recall: NDArray[np.float64]  # [K]; 0 for a class without examples
    calibration_error: float  # 0..1, expected; see `evaluate`
    bin_counts: NDArray[np.int64]  # [CALIBRATION_BINS], by the probability of the prediction
    bin_confidence: NDArray[np.float64]  # mean probability in each bin; 0 where it is empty
    bin_accuracy: NDArray[np.float64]  # share of right answers in each bin; 0 where it is empty

    @property
    def images(self) -> int:
        """N."""
        return int(self.confusion.sum())

    @property
    def guess_accuracy(self) -> float:
        """What always naming the most frequent class would reach, 0..1."""
        return float(self.confusion.sum(1).max() / self.images)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Where the accuracy on all images of the kind lies, with 95 % confidence, 0..1."""
        return accuracy_interval(self.accuracy, self.images)

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Plain JSON values, the classes by name."""
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


@dataclass(frozen=True)
class Trust:
    """What a model's probabilities, and the answers that it calls known, are worth on images that it has not seen."""

    uncalibrated_error: float  # 0..1: the calibration error without the temperature
    threshold: float  # the probability from which on an answer is known, 0..1
    known_share: float  # of all images, 0..1
    known_accuracy: float | None  # of the known answers, 0..1; None: there are none
    knows_novelty: bool  # whether an image unlike what was learnt from is not known, either


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: how a person finds the image, its pixels uint8 [H,W,C], the classes, how sure it was (0..1), and
    the heat float32 [H,W] of what spoke for it.
    """

    name: str
    image: NDArray[np.uint8]
    true: int
    predicted: int
    probability: float
    heat: NDArray[np.float32]


def evaluate(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> Evaluation:
    """Compare labels [N] with probabilities float32 [N,K], N ≥ 1.

    The calibration error is the expected one over equal-width bins of the prediction's probability (Guo et al.,
    "On Calibration of Modern Neural Networks", 2017).
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confidence = np.nan_to_num(probabilities.max(1).astype(np.float64))  # not finite: seen in the loss
    right = predicted == labels
    # By hand: scikit-learn takes longer to import than a head whose features are kept takes to be judged.
    confusion = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    bin_confidence = _ratio(np.bincount(bins, confidence, CALIBRATION_BINS), counts)
    bin_accuracy = _ratio(np.bincount(bins, right, CALIBRATION_BINS), counts)
    return Evaluation(
        accuracy=float(right.mean()),
        # A probability of zero is one that float32 cannot write: its loss is large, not infinite.
        loss=float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean()),
        confusion=confusion,
        precision=_ratio(confusion.diagonal(), confusion.sum(0)),
        recall=_ratio(confusion.diagonal(), confusion.sum(1)),
        calibration_error=float((counts * np.abs(bin_confidence - bin_accuracy)).sum() / len(labels)),
        bin_counts=counts,
        bin_confidence=bin_confidence,
        bin_accuracy=bin_accuracy,
    )


def judge_trust(labels: NDArray[np.int32], outputs: Outputs, temperature: float, threshold: float) -> Trust:
    """That of the `outputs` for N images of classes `labels` [N], whose logits were divided by `temperature`."""
    from scipy.special import softmax

    probabilities = outputs[PROBABILITIES]
    # Logits but for a constant of each image, which softmax does not see.
    logits = temperature * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    sure = known(probabilities.max(1).astype(np.float64).round(DECIMALS), outputs.get(NOVELTY), threshold)
    right = probabilities.argmax(1) == labels
    return Trust(
        uncalibrated_error=evaluate(labels, softmax(logits, axis=1)).calibration_error,
        threshold=threshold,
        known_share=float(sure.mean()),
        known_accuracy=float(right[sure].mean()) if sure.any() else None,
        knows_novelty=NOVELTY in outputs,
    )


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Where the accuracy on all images of a kind lies, with 95 % confidence, 0..1; `accuracy` is that on some of them.

    (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.)
    """
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def worst(labels: NDArray[np.int32], probabilities: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The positions of the most confident mistakes, at most `count`, the worst first."""
    mistakes = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities.max(1)[mistakes], kind="stable")
    return mistakes[order[:count]]


def mislabelled(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> int:
    """How many images have a label to which the model gives all but no chance, where that is more than it promised.

    By its own probabilities [N,K] some of what it finds IMPOSSIBLE is true. There is more where a model is too sure of
    itself, and where it is right and the labels are wrong.
    """
    from scipy.stats import binomtest

    impossible = probabilities < IMPOSSIBLE / probabilities.shape[1]
    found = int(impossible[np.arange(len(labels)), labels].sum())
    promised = float(np.where(impossible, probabilities, 0).sum(1).mean(dtype=np.float64))
    return found if found and binomtest(found, len(labels), promised, alternative="greater").pvalue < CHANCE else 0


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
