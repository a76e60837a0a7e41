from __future__ import annotations

import math
from pathlib import Path

import pytest
from sample_images import image_folder, save_image

from trainer.data import load
from trainer.data.dataset_summary import summarize
from trainer.images.pixels import PixelSpec


def test_a_summary_has_the_facts(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 200, "train/b": 50, "test/a": 1}, size=(8, 8))
    save_image(tmp_path / "train" / "b" / "large.png", size=(100, 80), mode="L")
    (tmp_path / "train" / "a" / "empty.png").write_bytes(b"")
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    summary = summarize(load(str(tmp_path), progress=False))
    assert summary.class_names == ("a", "b")
    assert summary.counts == {"train": (171, 47), "val": (29, 4), "test": (1, 0)}
    assert summary.sizes == ((8, 8, 3, 251), (100, 80, 1, 1))
    assert summary.pixels == PixelSpec(64, 64, 3)
    assert [(entry.path, entry.reason) for entry in summary.rejected] == [
        ("train/a/empty.png", "the image is empty: 0 bytes")
    ]
    assert summary.ignored == 1
    assert summary.imbalance == pytest.approx(171 / 47)


def test_a_class_without_training_images_is_infinitely_rare() -> None:
    assert math.isinf(summarize(load("builtin:digits", limit=3)).imbalance)
