from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.reporting import figures, metrics, report
from trainer.reporting.advice import Advice, Judgement
from trainer.reporting.learning_curve import LearningCurve

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1.2 / epoch, "val_accuracy": 0.6}
    for epoch in (1, 2, 3)
]
COLD = np.zeros((8, 8), np.float32)  # the heat of a mistake that nothing spoke for
PICTURES = ("confusion", "per_class", "calibration", "mistakes", "learning_curves")
# Of 120 validation images 60 are named right with 25 training images, 90 with 100; one more or less in each of 2 draws.
RIGHT = np.arange(120) < np.array([[61, 59], [73, 71], [82, 80], [90, 90]])[:, :, None]
CURVE = LearningCurve((25, 50, 75, 100), RIGHT)


def subject(labels: Sequence[str]) -> report.Subject:
    return report.Subject(
        "pets:v1",
        f"folder:{'a/very/long/path/' * 8}pets",
        "trainer evaluate pets",
        labels,
        tested="kept apart for this figure",
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
            uncalibrated_error=0.123, threshold=0.6789, known_share=0.88, known_accuracy=0.954, knows_novelty=False
        ),
        asked={"--dataset": "folder:pets", "--epochs": "12"},
        settings={"--optimizer": "adamw"},
        seconds={"reading": 6.0, "training": 90.0, "all": 120.0},
        model_bytes=3_456_789,
        answer_s=0.00234,
    )


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has_colour(picture: NDArray[np.uint8], colour: str) -> bool:
    return bool((picture == np.array(list(bytes.fromhex(colour[1:])))).all(2).any())


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (10, 3), (100, 1)])
def test_pictures_are_written_and_show_something(tmp_path: Path, classes: int, channels: int) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, 300).astype(np.int32)
    probabilities = generator.dirichlet(np.ones(classes), 300).astype(np.float32)
    names = ["naïve $x$ 日本 " * 3, "b_c\n\t", *(f"class {index}" for index in range(2, classes))]
    mistakes = [
        metrics.Mistake(
            "a/1.jpg",
            generator.integers(0, 256, (8, 8, channels), dtype=np.uint8),
            0,
            1,
            0.9,
            np.eye(8, dtype=np.float32),
        )
        for _ in range(5)
    ]
    folder = tmp_path / "report"
    paths = report.write(
        folder,
        subject(names),
        evaluation=metrics.evaluate(truth, probabilities),
        history=HISTORY,
        mistakes=mistakes,
        curve=CURVE,
    )
    shown = (*PICTURES, "more_images")
    assert paths == {name: folder / f"{name}.png" for name in shown} | {"page": folder / "report.html"}
    del paths["page"]
    pictures = {name: pixels(path) for name, path in paths.items()}
    for name, picture in pictures.items():
        assert 250 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= 2400, name
        assert picture.std() > 5, name
    for name in ("per_class", "learning_curves", "more_images"):
        assert has_colour(pictures[name], figures.BLUE), name
        assert has_colour(pictures[name], figures.ORANGE), name


def test_a_perfect_model_without_history(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    paths = report.write(tmp_path, subject(["a", "b"]), evaluation=evaluation, history=None, mistakes=[])
    assert "learning_curves" not in paths
    assert not (tmp_path / "learning_curves.png").exists()
    assert pixels(paths["mistakes"]).std() > 1  # it says that there are none
    page = read_page(paths["page"])
    assert "There are none: every test image was named right." in page.text
    assert page.headings == [
        "Doubtful",
        "Each class",
        "Calibration",
        "Confusion matrix",
        "Worst mistakes",
        "How it was made",
    ]


def test_the_image_of_a_mistake_is_shown_as_it_is(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    mistakes = [metrics.Mistake("a/1.jpg", np.full((8, 8, 3), (200, 10, 30), np.uint8), 0, 1, 0.9, COLD)]
    paths = report.write(tmp_path, subject(["a", "b"]), evaluation=evaluation, history=None, mistakes=mistakes)
    assert has_colour(pixels(paths["mistakes"]), "#c80a1e")


class ReportPage(HTMLParser):
    """What a page shows and what it refers to."""

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
    """The page of a network that takes 2 of 4 `dog` for the other class, with 80 %, and is else right, with 60 %."""
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    probabilities = np.array([[0.6, 0.4]] * 4 + [[0.4, 0.6]] * 2 + [[0.8, 0.2]] * 2, np.float32)
    mistakes = [metrics.Mistake("a/1.jpg", np.full((8, 8, 3), (200, 10, 30), np.uint8), 1, 0, 0.8, COLD)] * 2
    evaluation = metrics.evaluate(truth, probabilities)
    labels = subject([HOSTILE, "dog"])
    paths = report.write(tmp_path, labels, evaluation=evaluation, history=HISTORY, mistakes=mistakes, curve=CURVE)
    return paths["page"]


def test_the_page_says_the_values_and_shows_the_pictures(page_file: Path) -> None:
    page = read_page(page_file)
    for part in (
        "pets:v1",
        "folder:pets",
        "75.0 % 6 of 8, kept apart",
        "most likely between 40.9 % and 92.9 %",
        "naming the most frequent class would reach 50.0 %",
        "87.5 % of 200, by which",
        "12,345 images of folder:cats in 2 classes",
        "50.0 % on average; too few test images",  # right with 60 %: 40 points; wrong with 80 %: 80 points
        f"dog → {HOSTILE} 2 of 4 images of dog were taken for {HOSTILE}",
        f"dog , taken for {HOSTILE} (80.0 % sure) a/1.jpg",
        "by trainer evaluate pets Doubtful Right 75 times in 100, but <little> is known. What to try,",
        "Add images of dog trainer fit --dataset=folder:a/very/long/path/",
        "It is sure of an answer with a probability of 67.9 % or more; this network cannot tell a picture of something",
        "3.5 MB is the file that is served; one image takes 2.3 ms on this machine. It was made in 2 min 0 s",
        "What was asked for: --dataset folder:pets --epochs 12 All other settings --optimizer adamw",
        "With 50 of the 100 training images 60.0 % of the validation images are named right, with all of them 75.0 %;",
        "points more. Measured with the last layer alone, on the network as it came",
        "Where the 2 min 0 s went: training 1 min 30 s 75.0 % reading 6.0 s 5.0 % starting and the rest 24 s 20.0 %",
    ):
        assert part in page.text, part
    names = ("learning_curves", "more_images", "per_class", "calibration", "confusion")
    assert [alt for alt, _ in page.images] == [
        *page.headings[1:6],
        *["a picture of dog", f"what spoke for {HOSTILE}"] * 2,
    ]
    for name, (_, source) in zip(names, page.images, strict=False):
        np.testing.assert_array_equal(decoded(source), pixels(page_file.with_name(f"{name}.png")))
    np.testing.assert_array_equal(decoded(page.images[-2][1]), np.full((8, 8, 3), (200, 10, 30)))


def test_the_page_refers_to_nothing_outside(page_file: Path) -> None:
    page = read_page(page_file)
    assert len(page.references) == 10  # the pictures, and an icon that is none
    assert all(reference.startswith("data:") for reference in page.references)
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
    text = page_file.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(
    ("right_of_ten", "probability", "words"),
    [(9, 0.9, "well calibrated"), (5, 0.9, "too sure of itself"), (10, 0.6, "too modest")],
)
def test_calibration_in_words(right_of_ten: int, probability: float, words: str) -> None:
    truth = np.array([0] * right_of_ten + [1] * (10 - right_of_ten), np.int32)
    probabilities = np.tile(np.array([probability, 1 - probability], np.float32), (10, 1))
    assert report._calibration_in_words(metrics.evaluate(truth, probabilities)).startswith("too few test images")
    evaluation = metrics.evaluate(np.tile(truth, 10), np.tile(probabilities, (10, 1)))
    assert report._calibration_in_words(evaluation).startswith(words)


def test_the_most_confused_classes() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
    answers = np.array([0, 2, 2, 1, 0, 2, 2])
    evaluation = metrics.evaluate(truth, np.eye(3, dtype=np.float32)[answers])
    assert report._most_confused(evaluation) == [(0, 2, 2, 3), (1, 0, 1, 2)]
    assert report._most_confused(evaluation, most=1) == [(0, 2, 2, 3)]


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_in_a_browser(page_file: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: problems.append(message.text))  # what its own policy refuses
            page.goto(page_file.as_uri())
            shown = page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")
            assert shown == [True] * len(read_page(page_file).images)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("getComputedStyle(document.querySelector('main')).columnWidth") == "432px"
        finally:
            browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert problems == []


@pytest.fixture
def _only_bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib
    from matplotlib.font_manager import fontManager

    bundled = [font for font in fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", bundled)


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_names_that_no_font_has_can_be_told_apart() -> None:
    fonts, names = figures._drawable(["日本", "中国", "Grün", "été", "a$b$", "x" * 40])
    assert names == ["0: ??", "1: ??", "Grün", "été", r"a\$b\$", "x" * 23 + "…"]
    assert fonts == ["DejaVu Sans"]


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_another_installed_font_helps_out() -> None:
    letter = "\ue000"  # not in DejaVu Sans; in a font that comes with matplotlib
    fonts, names = figures._drawable(["a", letter])
    assert names == ["a", letter]
    assert fonts == ["DejaVu Sans", "STIXNonUnicode"]
