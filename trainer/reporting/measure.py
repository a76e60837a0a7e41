"""A served model, measured on images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine
from trainer.artifact.explain import explain, load_activation_engine
from trainer.data import Split
from trainer.data.batches import predict_batches
from trainer.errors import DivergedError
from trainer.reporting.latency import median_seconds
from trainer.reporting.metrics import (
    Evaluation,
    Mistake,
    Trust,
    count_test_label_issues,
    evaluate,
    measure_trust,
    most_confident_mistakes,
)

SHOWN_MISTAKES = 16
TIMED_PREDICTIONS = 15


@dataclass(frozen=True)
class Measurement:
    """Predictions of a model for N images, and how good they are."""

    predicted: NDArray[np.int64]  # [N] classes
    evaluation: Evaluation
    trust: Trust | None  # None: a model without a threshold
    mistakes: list[Mistake]  # the most confident ones
    label_issues: int  # images whose label is likely wrong
    latency_s: float  # for one image, on this machine


def measure(
    engine: Engine,
    images: Split,
    labels: NDArray[np.int32],
    folder: Path,
    what: str,
    temperature: float | None,
    threshold: float | None,
) -> Measurement:
    """Run `images` through the `engine` of the artifact in `folder`, and compare with `labels` [len(images)].

    `labels` are in the order of the model's classes, which can differ from that of the data set. `what` names the job
    in the progress display. Raises DivergedError where an output is not finite.
    """
    outputs = predict_batches(engine.predict, images, what)
    probabilities = outputs[PROBABILITIES]
    if not np.isfinite(probabilities).all():
        raise DivergedError(f"{what}: the outputs of the network are not finite; nothing is published")
    trust = None
    if temperature is not None and threshold is not None:
        trust = measure_trust(labels, outputs, temperature, threshold)
    return Measurement(
        predicted=probabilities.argmax(1),
        evaluation=evaluate(labels, probabilities),
        trust=trust,
        mistakes=find_mistakes(images, labels, probabilities, engine, folder),
        label_issues=count_test_label_issues(labels, probabilities),
        latency_s=median_seconds([(engine, images.read(np.arange(1)))], TIMED_PREDICTIONS)[0],
    )


def find_mistakes(
    images: Split, labels: NDArray[np.int32], probabilities: NDArray[np.float32], engine: Engine, folder: Path
) -> list[Mistake]:
    """The most confident mistakes of the artifact in `folder`, each with its image and the saliency map of its class.

    `probabilities` float32 [N,K] are those of `engine` for `images` with `labels` [N].
    """
    activation = load_activation_engine(folder)
    mistakes = []
    for index in most_confident_mistakes(labels, probabilities, SHOWN_MISTAKES):
        image = images.read(np.array([index]))[0]
        predicted = int(probabilities[index].argmax())
        mistakes.append(
            Mistake(
                name=images.name(index),
                image=image,
                true=int(labels[index]),
                predicted=predicted,
                probability=float(probabilities[index].max()),
                saliency=explain(image, predicted, engine, activation),
            )
        )
    return mistakes
