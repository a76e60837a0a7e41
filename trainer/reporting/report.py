"""The report: figures as PNG files, and one HTML page that contains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from trainer.console import format_duration
from trainer.files import write_bytes, write_text
from trainer.images.encode import data_uri, encode_png
from trainer.images.saliency import overlay
from trainer.reporting.advice import Judgement
from trainer.reporting.advice.verdict import in_100
from trainer.reporting.comparison import Comparison
from trainer.reporting.figures import MIN_BIN_PREDICTIONS, draw
from trainer.reporting.learning_curve import LearningCurve
from trainer.reporting.metrics import (
    FEW_TEST_IMAGES,
    UNCALIBRATED,
    WELL_CALIBRATED,
    Evaluation,
    Mistake,
    Trust,
    most_confused,
)
from trainer.reporting.templates import render

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")
CONFUSED_PAIRS = 3  # pairs of classes that are named
MAX_CLASSES_IN_CARD = 20  # with more, the confusion matrix is as wide as the page
SHOWN_CLASSES = 60  # of more, the weakest are shown, and the others on demand


@dataclass(frozen=True)
class Before:
    """The version that a training started from, beside the new one."""

    tag: str
    compared: Comparison  # A: that version, B: the new one
    added: Sequence[str]  # classes that only the new one has
    gone: Sequence[str]  # classes that only that version has


@dataclass(frozen=True)
class ReportFacts:
    """Facts about a model and its training that a report shows beside the `evaluation` on test images."""

    name: str  # of the model or its tag
    dataset: str  # a spec
    command: str  # that wrote the report
    class_names: Sequence[str]
    test_images_note: str  # how the test images relate to the model: a clause
    trained_on: str  # a spec
    train_images: int | None  # None: unknown
    val_images: int
    val_accuracy: float | None  # 0..1; None without validation images
    judgement: Judgement
    trust: Trust | None  # None: a model without a threshold
    given_options: Mapping[str, str]  # options of the command line
    other_settings: Mapping[str, str]  # resolved values of all other options
    seconds: Mapping[str, float]  # by stage, and `all`; empty where the model was measured only
    model_bytes: int  # size of the file that is served
    latency_s: float  # latency for one image on this machine
    before: Before | None = None  # None: trained from the beginning, or no image to compare on


def write(
    folder: Path,
    facts: ReportFacts,
    *,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]] | None,
    mistakes: Sequence[Mistake],
    val_mistakes: Sequence[Mistake] = (),
    curve: LearningCurve | None = None,
) -> dict[str, Path]:
    """Write the figures as PNG files into `folder`, and PAGE with all of them; name → path, the page as `page`.

    `mistakes` are those on test images, which the figure shows; the page shows `val_mistakes` apart from them.

    The training curves need a `history` of epochs, the figure of more images a learning `curve`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(facts.class_names, evaluation, history, mistakes, curve)
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, png in figures.items():
        write_bytes(paths[name], png)
    paths["page"] = folder / PAGE
    page = _page(facts, evaluation, history or (), mistakes, val_mistakes, figures, curve)
    write_text(paths["page"], page)
    return paths


def _page(
    facts: ReportFacts,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]],
    mistakes: Sequence[Mistake],
    val_mistakes: Sequence[Mistake],
    figures: Mapping[str, bytes],
    curve: LearningCurve | None,
) -> str:
    """Self-contained HTML. Each mistake is an image of its own, so that a narrow screen can wrap them."""
    class_names = facts.class_names
    return render(
        TEMPLATE,
        facts=facts,
        classes=len(class_names),
        wide=len(class_names) > MAX_CLASSES_IN_CARD,
        test_images=evaluation.images,
        correct=int(np.trace(evaluation.confusion)),
        accuracy=evaluation.accuracy,
        interval=evaluation.accuracy_interval,
        guess_accuracy=evaluation.guess_accuracy,
        calibration_error=evaluation.calibration_error,
        calibration=describe_calibration(evaluation),
        temperature=describe_temperature(evaluation, facts.trust) if facts.trust else "",
        first_epochs=describe_first_epochs(history),
        each_class=_each_class(class_names, evaluation),
        shown_classes=SHOWN_CLASSES,
        percent=_percent,
        in_100=in_100,
        confused=[
            (class_names[truth], class_names[predicted], *counts)
            for truth, predicted, *counts in most_confused(evaluation, CONFUSED_PAIRS)
        ],
        figures={name: data_uri(png) for name, png in figures.items()},
        mistakes=[_mistake(mistake, class_names) for mistake in mistakes],
        val_mistakes=[_mistake(mistake, class_names) for mistake in val_mistakes],
        curve=curve.summary if curve else "",
        min_bin_predictions=MIN_BIN_PREDICTIONS,
        duration=format_duration(facts.seconds["all"]) if facts.seconds else None,
        stages=_stages(facts.seconds),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _mistake(mistake: Mistake, class_names: Sequence[str]) -> tuple[str, str, str, str, str, float]:
    """Name, image, saliency map, truth, answer and probability of a mistake on the page."""
    return (
        mistake.name,
        data_uri(encode_png(mistake.image)),
        data_uri(encode_png(overlay(mistake.image, mistake.saliency))),
        class_names[mistake.true],
        class_names[mistake.predicted],
        mistake.probability,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _each_class(class_names: Sequence[str], evaluation: Evaluation) -> list[dict[str, Any]]:
    """Name, number of images, recall and precision (0..1, None without images or predictions); the weakest first."""
    images, predictions = evaluation.confusion.sum(1), evaluation.confusion.sum(0)
    order = np.lexsort((evaluation.precision, evaluation.recall, images == 0))
    return [
        {
            "name": class_names[index],
            "images": images[index],
            "recall": evaluation.recall[index] if images[index] else None,
            "precision": evaluation.precision[index] if predictions[index] else None,
        }
        for index in order
    ]


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Stage, its share of the time (0..1) and its duration; the longest first, time in no stage last."""
    stages = sorted(((name, value) for name, value in seconds.items() if name != "all"), key=lambda stage: -stage[1])
    rest = seconds.get("all", 0.0) - sum(value for _, value in stages)
    named = [*stages, ("starting and the rest", rest)] if stages else []
    return [(name, value / seconds["all"], format_duration(value)) for name, value in named]


def describe_calibration(evaluation: Evaluation) -> str:
    """Whether the probabilities of a model can be trusted: a clause."""
    if evaluation.images < FEW_TEST_IMAGES:
        return "too few test images to tell more"
    if evaluation.calibration_error <= WELL_CALIBRATED:
        return "well calibrated: a probability can be taken at its word"
    mean_confidence = evaluation.bin_counts @ evaluation.bin_confidence / evaluation.bin_counts.sum()
    low, high = evaluation.accuracy_interval
    if low <= mean_confidence <= high:
        return "as far as so many test images tell, a probability can be taken at its word"
    if mean_confidence > evaluation.accuracy:
        return "overconfident: right less often than its probabilities say"
    return "underconfident: right more often than its probabilities say"


def describe_temperature(evaluation: Evaluation, trust: Trust) -> str:
    """Effect of the calibration on these images, in sentences without the last full stop."""
    if trust.temperature == UNCALIBRATED:
        return "They are as they came out of training: calibration would not have improved them on validation"
    before = f"Before calibration it was {_percent(trust.uncalibrated_error)}"
    if evaluation.calibration_error <= trust.uncalibrated_error:
        return before
    return (
        f"{before}: calibration is fitted on the validation images, where it helped; on these it did not, by chance or "
        "because they are of another kind"
    )


def describe_first_epochs(history: Sequence[Mapping[str, float]]) -> str:
    """Why the curves of a pretrained network bend after epoch 0, in sentences; empty where they have no epoch 0."""
    if len(history) < 2 or history[0]["epoch"] != 0:
        return ""
    probe, first = history[:2]

    def falls(key: str) -> str:
        return f"accuracy falls from {_percent(probe[key])} to {_percent(first[key])} because"

    sentences = ["Epoch 0 is a linear probe: the last layer alone, on the pretrained network."]
    if first["accuracy"] < probe["accuracy"]:
        sentences.append(
            f"The training {falls('accuracy')} it is measured in another way: for epoch 0 on the images as they are, "
            "once the probe is fitted; from then on while the network learns, and on images that are altered at random "
            "(unless --augment is none)."
        )
    if first["val_accuracy"] < probe["val_accuracy"]:
        sentences.append(
            f"The validation {falls('val_accuracy')} the first steps change layers that the probe was fitted on; the "
            "best epoch is kept, epoch 0 included."
        )
    return " ".join(sentences)
