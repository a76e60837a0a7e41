from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer import metrics, report

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1.2 / epoch, "val_accuracy": 0.6}
    for epoch in (1, 2, 3)
]


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_written_and_not_blank(tmp_path: Path, classes: int, channels: int) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, 300).astype(np.int32)
    probabilities = generator.dirichlet(np.ones(classes), 300).astype(np.float32)
    names = ["naïve $x$ 日本 " * 3, "b_c", *(f"class {index}" for index in range(2, classes))]
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
    assert set(paths) == {"confusion", "per_class", "calibration", "mistakes", "learning_curves"}
    for path in paths.values():
        with Image.open(path) as image:
            assert min(image.size) >= 250
            assert np.asarray(image.convert("L")).std() > 5


def test_without_history_or_mistakes(tmp_path: Path) -> None:
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.eye(2, dtype=np.float32))
    paths = report.write(tmp_path, labels=["a", "b"], evaluation=evaluation, history=None, mistakes=[])
    assert "learning_curves" not in paths
    assert paths["mistakes"].exists()
