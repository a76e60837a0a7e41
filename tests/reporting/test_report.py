from __future__ import annotations

import base64
import dataclasses
import io
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.reporting import metrics, report
from trainer.reporting.advice import Advice, Judgement
from trainer.reporting.learning_curve import LearningCurve

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1.2 / epoch, "val_accuracy": 0.6}
    for epoch in (1, 2, 3)
]
NO_SALIENCY = np.zeros((8, 8), np.float32)
# Of 120 validation images 60 are correct with 25 training images, 90 with 100; one more or less in each of 2 draws.
CORRECT = np.arange(120) < np.array([[61, 59], [73, 71], [82, 80], [90, 90]])[:, :, None]
CURVE = LearningCurve((25, 50, 75, 100), CORRECT)


def make_facts(class_names: Sequence[str]) -> report.ReportFacts:
    return report.ReportFacts(
        "pets:v1",
        f"folder:{'a/very/long/path/' * 8}pets",
        "trainer evaluate pets",
        class_names,
        test_images_note="kept apart for this figure",
        trained_on="folder:cats",
        train_images=12_345,
        val_images=200,
        val_accuracy=0.875,
        judgement=Judgement(
            "doubtful",
            "right 75 times in 100, but <little> is known",
            [Advice("add images of dog", f"trainer fit --dataset=folder:{'a/very/long/path/' * 8}")],
        ),
        trust=metrics.Trust(
            temperature=2.0,
            uncalibrated_error=0.123,
            threshold=0.6789,
            known_share=0.88,
            known_accuracy=0.954,
            knows_novelty=False,
        ),
        given_options={"--dataset": "folder:pets", "--epochs": "12"},
        other_settings={"--optimizer": "adamw"},
        seconds={"reading": 6.0, "training": 90.0, "all": 120.0},
        model_bytes=3_456_789,
        latency_s=0.00234,
    )


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_perfect_model_without_history(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    paths = report.write(tmp_path, make_facts(["a", "b"]), evaluation=evaluation, history=None, mistakes=[])
    assert "learning_curves" not in paths
    assert not (tmp_path / "learning_curves.png").exists()
    assert pixels(paths["mistakes"]).std() > 1  # it says that there are none
    page = read_page(paths["page"])
    assert "There are none: every test image was named right." in page.text
    assert page.headings == [
        "Doubtful",
        "Confusion matrix",
        "Calibration",
        "Each class",
        "Worst mistakes",
        "How it was made",
    ]


class ReportPage(HTMLParser):
    """Text, headings, images and references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.images: list[tuple[str, str]] = []  # alternative text, source
        self.references: list[str] = []
        self._tag = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.tags.add(tag)
        values = {name: value or "" for name, value in attributes}
        if tag == "img":
            self.images.append((values["alt"], values["src"]))
        self.references += [values[name] for name in ("src", "href", "srcset", "action", "data") if name in values]

    def handle_data(self, data: str) -> None:
        if self._tag == "h2" and data.strip():
            self.headings.append(data)
        if self._tag != "style":
            self.text = " ".join([*self.text.split(), *data.split()])


def read_page(path: Path) -> ReportPage:
    page = ReportPage()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def decoded(data_uri: str) -> NDArray[np.uint8]:
    data = base64.b64decode(data_uri.removeprefix("data:image/png;base64,"), validate=True)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


HOSTILE = '<script src="http://x.example/x.js"></script> & "cats"'


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    """The page of a model that takes 2 of 4 `dog` for the other class, with 80 %, and is else correct, with 60 %."""
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    probabilities = np.array([[0.6, 0.4]] * 4 + [[0.4, 0.6]] * 2 + [[0.8, 0.2]] * 2, np.float32)
    mistakes = [metrics.Mistake("a/1.jpg", np.full((8, 8, 3), (200, 10, 30), np.uint8), 1, 0, 0.8, NO_SALIENCY)] * 2
    evaluation = metrics.evaluate(truth, probabilities)
    facts = make_facts([HOSTILE, "dog"])
    paths = report.write(tmp_path, facts, evaluation=evaluation, history=HISTORY, mistakes=mistakes, curve=CURVE)
    return paths["page"]


def test_page_has_the_values_and_the_figures(page_file: Path) -> None:
    page = read_page(page_file)
    names = ("learning_curves", "confusion", "calibration", "more_images")
    files = {path.name for path in page_file.parent.iterdir()}
    assert files == {"report.html", "mistakes.png", *(f"{name}.png" for name in names)}
    for part in (
        "pets:v1",
        "folder:pets",
        "75.0 % 6 of 8, kept apart",
        "most likely between 40.9 % and 92.9 %",
        "naming the most frequent class would reach 50.0 %",
        "87.5 % of 200, by which",
        "12,345 images of folder:cats in 2 classes",
        "50.0 % on average; too few test images",  # correct with 60 %: 40 points; wrong with 80 %: 80 points
        f"dog → {HOSTILE} 2 of 4 images of dog were taken for {HOSTILE}",
        f"class images recall precision dog 4 50.0 % 100.0 % {HOSTILE} 4 100.0 % 66.7 %",
        "Before calibration it was 12.3 %: calibration is fitted on the validation images, where it helped; on these",
        f"dog , taken for {HOSTILE} (80.0 % sure) a/1.jpg",
        "by trainer evaluate pets Doubtful Right 75 times in 100, but <little> is known. What to try,",
        "Add images of dog trainer fit --dataset=folder:a/very/long/path/",
        "It is sure of an answer with a probability of 67.9 % or more; this network cannot detect an image of",
        "3.5 MB is the file that is served; one image takes 2.3 ms on this machine. It was made in 2 min 0 s",
        "Options of the command: --dataset folder:pets --epochs 12 All other settings --optimizer adamw",
        "With 50 of the 100 training images 60.0 % of the validation images are named right, with all of them 75.0 %;",
        "points more. Measured with a linear probe",
        "Where the 2 min 0 s went: training 1 min 30 s 75.0 % reading 6.0 s 5.0 % starting and the rest 24 s 20.0 %",
    ):
        assert part in page.text, part
    assert [alt for alt, _ in page.images] == [
        *page.headings[1:5],
        *["an image of dog", f"saliency map for {HOSTILE}"] * 2,
    ]
    for name, (_, source) in zip(names, page.images, strict=False):
        np.testing.assert_array_equal(decoded(source), pixels(page_file.with_name(f"{name}.png")))
    np.testing.assert_array_equal(decoded(page.images[-2][1]), np.full((8, 8, 3), (200, 10, 30)))


def test_page_refers_to_nothing_outside(page_file: Path) -> None:
    page = read_page(page_file)
    assert len(page.references) == 9  # the images, and an empty icon
    assert all(reference.startswith("data:") for reference in page.references)
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
    text = page_file.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(
    ("correct_of_ten", "probability", "words"),
    [(9, 0.9, "well calibrated"), (5, 0.9, "overconfident"), (10, 0.6, "underconfident")],
)
def test_describe_calibration(correct_of_ten: int, probability: float, words: str) -> None:
    truth = np.array([0] * correct_of_ten + [1] * (10 - correct_of_ten), np.int32)
    probabilities = np.tile(np.array([probability, 1 - probability], np.float32), (10, 1))
    assert report.describe_calibration(metrics.evaluate(truth, probabilities)).startswith("too few test images")
    evaluation = metrics.evaluate(np.tile(truth, 10), np.tile(probabilities, (10, 1)))
    assert report.describe_calibration(evaluation).startswith(words)


@pytest.mark.parametrize(
    ("temperature", "before", "words"),
    [
        (1.0, 0.25, "They are as they came out of training"),
        (2.0, 0.4, "Before calibration it was 40.0\u00a0%"),
        (2.0, 0.1, "Before calibration it was 10.0\u00a0%: calibration is fitted on the validation images, where"),
    ],
)
def test_describe_temperature(temperature: float, before: float, words: str) -> None:
    """The model is right on half of the images, with a probability of 75 %."""
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.array([[0.75, 0.25]] * 2, np.float32))
    assert evaluation.calibration_error == 0.25
    trust = make_facts(["a", "b"]).trust
    assert trust
    changed = dataclasses.replace(trust, temperature=temperature, uncalibrated_error=before)
    described = report.describe_temperature(evaluation, changed)
    assert described.startswith(words)
    assert (described == words) == (before == 0.4)


PROBE = {"epoch": 0, "loss": 0.03, "accuracy": 1.0, "val_loss": 0.82, "val_accuracy": 0.723}
FIRST = {"epoch": 1, "loss": 0.54, "accuracy": 0.834, "val_loss": 0.68, "val_accuracy": 0.8}


def test_a_fall_after_the_linear_probe_is_explained() -> None:
    assert report.describe_first_epochs([FIRST]) == report.describe_first_epochs([PROBE]) == ""
    training = report.describe_first_epochs([PROBE, FIRST])
    assert "training accuracy falls from 100.0\u00a0% to 83.4\u00a0% because it is measured in another way" in training
    assert "validation" not in training
    validation = report.describe_first_epochs([PROBE, {**FIRST, "accuracy": 1.0, "val_accuracy": 0.7}])
    assert "validation accuracy falls from 72.3\u00a0% to 70.0\u00a0% because the first steps change" in validation
    assert "training accuracy" not in validation
    rises = report.describe_first_epochs([{**PROBE, "accuracy": 0.8}, FIRST])
    assert rises == "Epoch 0 is a linear probe: the last layer alone, on the pretrained network."


CHROMIUM = shutil.which("chromium")


LONG_NAMES = [
    "تفاحة حمراء كبيرة من السوق",
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
    "a & <b>",
    "🍅 tomato",
]


def write_report(folder: Path, classes: int) -> Path:
    """A page of a model for so many classes, some with long names; a class has no image, and one no prediction."""
    generator = np.random.default_rng(0)
    names = [*LONG_NAMES, *(f"class {index}" for index in range(classes))][:classes]
    truth = np.arange(6 * classes, dtype=np.int32) % max(2, classes - 1)
    logits = generator.standard_normal((len(truth), classes)) + 4 * np.eye(classes)[truth]
    probabilities = np.exp(logits - (50 * (np.arange(classes) == 2)))
    probabilities /= probabilities.sum(1, keepdims=True)
    image = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mistakes = [metrics.Mistake("a/1.jpg", image, 1, 0, 0.8, NO_SALIENCY)] * 8
    evaluation = metrics.evaluate(truth, probabilities.astype(np.float32))
    history = [PROBE, FIRST, *HISTORY[1:]]
    facts = make_facts(names)
    return report.write(folder, facts, evaluation=evaluation, history=history, mistakes=mistakes, curve=CURVE)["page"]


# Vertical gaps between the blocks of the page; of each row of cards whether all are equally high, and its width; the
# lines that short names of classes take.
LAYOUT = """() => {
    const box = element => element.getBoundingClientRect();
    const blocks = [...document.querySelectorAll("body > :not(main), main > *")].map(box);
    const rows = Map.groupBy([...document.querySelectorAll(".cards > section")].map(box), card => card.top);
    const names = [...document.querySelectorAll(".classes bdi")].filter(name => name.textContent.startsWith("class "));
    return {
        gaps: blocks.slice(1).map((block, index) => block.top - blocks[index].bottom),
        equal: [...rows.values()].every(row => row.every(card => card.height === row[0].height)),
        widths: [...rows.values()].map(row => Math.round(row.at(-1).right - row[0].left)),
        width: Math.round(box(document.querySelector("main")).width),
        lines: Math.max(0, ...names.map(name => name.getClientRects().length)),
        page: document.documentElement.scrollWidth,
    };
}"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("classes", [2, 43, 200])
def test_page_in_a_browser(tmp_path: Path, classes: int) -> None:
    """No hole, nothing that sticks out, on a telephone and on a desk."""
    from playwright.sync_api import sync_playwright

    file = write_report(tmp_path, classes)
    requests: list[str] = []
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            for width in (360, 1280):
                page = browser.new_page(viewport={"width": width, "height": 800})
                page.on("request", lambda request: requests.append(request.url))
                page.on("console", lambda message: problems.append(message.text))  # refused by its own policy
                page.goto(file.as_uri())
                shown = page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")
                assert shown == [True] * len(read_page(file).images)
                layout = page.evaluate(LAYOUT)
                assert layout["page"] == width
                assert max(layout["gaps"]) <= 32
                assert layout["equal"]
                assert layout["widths"] == [layout["width"]] * len(layout["widths"])
                assert layout["lines"] <= 1
        finally:
            browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()] * 2
    assert problems == []
