from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer import metrics, report

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1.2 / epoch, "val_accuracy": 0.6}
    for epoch in (1, 2, 3)
]


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
        report.Mistake(generator.integers(0, 256, (8, 8, channels), dtype=np.uint8), 0, 1, 0.9) for _ in range(5)
    ]
    paths = report.write(
        tmp_path / "report",
        labels=names,
        evaluation=metrics.evaluate(truth, probabilities),
        history=HISTORY,
        mistakes=mistakes,
    )
    assert paths == {
        name: tmp_path / "report" / f"{name}.png"
        for name in ("confusion", "per_class", "calibration", "mistakes", "learning_curves")
    }
    pictures = {name: pixels(path) for name, path in paths.items()}
    for name, picture in pictures.items():
        assert 250 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= 2400, name
        assert picture.std() > 5, name
    for name in ("per_class", "learning_curves"):
        assert has_colour(pictures[name], report.BLUE), name
        assert has_colour(pictures[name], report.ORANGE), name


def test_a_perfect_model_without_history(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    paths = report.write(tmp_path, labels=["a", "b"], evaluation=evaluation, history=None, mistakes=[])
    assert "learning_curves" not in paths
    assert not (tmp_path / "learning_curves.png").exists()
    assert pixels(paths["mistakes"]).std() > 1  # it says that there are none


def test_the_image_of_a_mistake_is_shown_as_it_is(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    mistakes = [report.Mistake(np.full((8, 8, 3), (200, 10, 30), np.uint8), 0, 1, 0.9)]
    paths = report.write(tmp_path, labels=["a", "b"], evaluation=evaluation, history=None, mistakes=mistakes)
    assert has_colour(pixels(paths["mistakes"]), "#c80a1e")


@pytest.fixture
def _only_bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib
    from matplotlib.font_manager import fontManager

    bundled = [font for font in fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", bundled)


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_names_that_no_font_has_can_be_told_apart() -> None:
    fonts, names = report._drawable(["日本", "中国", "Grün", "été", "a$b$", "x" * 40])
    assert names == ["0: ??", "1: ??", "Grün", "été", r"a\$b\$", "x" * 23 + "…"]
    assert fonts == ["DejaVu Sans"]


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_another_installed_font_helps_out() -> None:
    letter = "\ue000"  # not in DejaVu Sans; in a font that comes with matplotlib
    fonts, names = report._drawable(["a", letter])
    assert names == ["a", letter]
    assert fonts == ["DejaVu Sans", "STIXNonUnicode"]
