"""The report: pictures, and one page with all of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from trainer.images.encode import encode_png
from trainer.images.heat import overlay
from trainer.reporting.advice import Judgement, in_100
from trainer.reporting.figures import TELLING_ANSWERS, draw
from trainer.reporting.learning_curve import LearningCurve
from trainer.reporting.metrics import FEW_TEST_IMAGES, Evaluation, Mistake, Trust
from trainer.reporting.templates import render

WELL_CALIBRATED = 0.03  # calibration error, up to which a probability can be taken at its word
PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Subject:
    """What a report is about; `evaluation`, beside it, is on the test images."""

    name: str  # the model's, or its tag
    dataset: str  # a spec
    command: str  # what the report comes from
    class_names: Sequence[str]
    tested: str  # what the test images are to the model: a clause
    trained_on: str  # a spec
    train_images: int | None  # None: it is not known
    val_images: int
    val_accuracy: float | None  # 0..1; None without validation images
    judgement: Judgement
    trust: Trust | None  # None: a model without a threshold
    asked: Mapping[str, str]  # the options that were asked for
    settings: Mapping[str, str]  # all others
    seconds: Mapping[str, float]  # by part of the work, and `all`; empty where the model is only measured
    model_bytes: int  # of the file that is served
    answer_s: float  # for one image, on this machine


def write(
    folder: Path,
    subject: Subject,
    *,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]] | None,
    mistakes: Sequence[Mistake],
    curve: LearningCurve | None = None,
) -> dict[str, Path]:
    """Write the pictures as PNG files into `folder`, and PAGE with all of them; name → path, the page as `page`.

    Learning curves need a `history` of epochs, and what more images would bring a `curve`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(subject.class_names, evaluation, history, mistakes, curve)
    paths = {name: folder / f"{name}.png" for name in pictures}
    for name, picture in pictures.items():
        paths[name].write_bytes(picture)
    page = _page(subject, evaluation, mistakes, pictures, curve)
    paths["page"] = folder / PAGE
    paths["page"].write_text(page, encoding="utf-8")
    return paths


def _page(
    subject: Subject,
    evaluation: Evaluation,
    mistakes: Sequence[Mistake],
    pictures: Mapping[str, bytes],
    curve: LearningCurve | None,
) -> str:
    """HTML that needs nothing but itself. The mistakes are pictures of their own, which a narrow screen can wrap."""
    class_names = subject.class_names
    return render(
        TEMPLATE,
        subject=subject,
        classes=len(class_names),
        test_images=evaluation.images,
        right=int(np.trace(evaluation.confusion)),
        accuracy=evaluation.accuracy,
        interval=evaluation.accuracy_interval,
        guess_accuracy=evaluation.guess_accuracy,
        calibration_error=evaluation.calibration_error,
        calibration=_calibration_in_words(evaluation),
        in_100=in_100,
        confused=[
            (class_names[truth], class_names[answer], *counts) for truth, answer, *counts in _most_confused(evaluation)
        ],
        pictures={name: _data_uri(png) for name, png in pictures.items()},
        mistakes=[
            (
                mistake.name,
                _data_uri(encode_png(mistake.image)),
                _data_uri(encode_png(overlay(mistake.image, mistake.heat))),
                class_names[mistake.true],
                class_names[mistake.predicted],
                mistake.probability,
            )
            for mistake in mistakes
        ],
        curve=curve.in_words if curve else "",
        telling_answers=TELLING_ANSWERS,
        duration=_spoken(subject.seconds["all"]) if subject.seconds else None,
        parts=_parts(subject.seconds),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _parts(seconds: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Part of the work, its share of all (0..1), its time in words; the longest first, what is in no part last."""
    parts = sorted(((name, value) for name, value in seconds.items() if name != "all"), key=lambda part: -part[1])
    rest = seconds.get("all", 0.0) - sum(value for _, value in parts)
    named = [*parts, ("starting and the rest", rest)] if parts else []
    return [(name, value / seconds["all"], _spoken(value)) for name, value in named]


def _spoken(seconds: float) -> str:
    """`0.3 s`, `45 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    minutes = f"{whole // 60} min {whole % 60} s"
    return minutes if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _most_confused(evaluation: Evaluation, most: int = 3) -> list[tuple[int, int, int, int]]:
    """Truth, wrong answer, how often, and of how many images; the most frequent first."""
    wrong = evaluation.confusion * ~np.eye(len(evaluation.confusion), dtype=bool)
    images = wrong.sum(1) + np.diag(evaluation.confusion)
    places = [np.unravel_index(place, wrong.shape) for place in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return [
        (int(truth), int(answer), int(wrong[truth, answer]), int(images[truth]))
        for truth, answer in places
        if wrong[truth, answer]
    ]


def _calibration_in_words(evaluation: Evaluation) -> str:
    if evaluation.images < FEW_TEST_IMAGES:
        return "too few test images to tell more"
    if evaluation.calibration_error <= WELL_CALIBRATED:
        return "well calibrated: a probability can be taken at its word"
    promised = evaluation.bin_counts @ evaluation.bin_confidence / evaluation.bin_counts.sum()
    low, high = evaluation.accuracy_interval
    if low <= promised <= high:
        return "as far as so many test images tell, a probability can be taken at its word"
    if promised > evaluation.accuracy:
        return "too sure of itself: right less often than its probabilities say"
    return "too modest: right more often than its probabilities say"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
