from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data import Dataset, load
from trainer.data_checks.embeddings import kernel_features
from trainer.data_checks.pre_fit import can_afford, count_label_issues, log_blank_images


def test_blank_and_dark_images_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    log_blank_images(load(str(tmp_path)))
    assert caplog.messages == []
    Image.new("RGB", (16, 16), "white").save(tmp_path / "a" / "white.png")
    Image.fromarray(random.integers(0, 20, (16, 16, 3), np.uint8)).save(tmp_path / "b" / "night.png")
    log_blank_images(load(str(tmp_path)))
    blank, dark = caplog.messages
    assert "1 of 26 images" in blank
    assert "a/white.png" in blank
    assert "1 of 26 images" in dark
    assert "b/night.png" in dark


def test_label_issues_of_training_and_validation_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    dataset = load("builtin:digits")
    assert _count(dataset) <= 2
    cache = dataset.train.cache
    wrong = np.random.default_rng(0).permutation(len(cache))[:180]
    cache.labels[wrong] = (cache.labels[wrong] + 1) % 10
    changed = load("builtin:digits")
    changed.train.cache.labels[:] = cache.labels
    assert 80 <= _count(changed) <= 200
    assert "labels may be wrong" in caplog.messages[-1]


def _count(dataset: Dataset) -> int:
    train, val = (split.read(np.arange(len(split))) for split in (dataset.train, dataset.val))
    features = kernel_features(np.concatenate([train, val]))
    found = count_label_issues(dataset, features[: len(train)], features[len(train) :])
    assert found
    assert found[1] == len(train) + len(val)
    return found[0]


def test_the_label_check_needs_a_small_share_of_the_time() -> None:
    dataset = load("builtin:digits")
    assert can_afford(dataset, float("inf"))
    assert can_afford(dataset, 600)
    assert not can_afford(dataset, 60)
