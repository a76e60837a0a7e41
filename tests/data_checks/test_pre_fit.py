"""What is said before a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data import load
from trainer.data.dataset import Dataset
from trainer.data_checks.embeddings import likeness_to_some
from trainer.data_checks.pre_fit import can_afford, count_wrong_labels, log_empty


def test_empty_pictures_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    log_empty(load(str(tmp_path)))
    assert caplog.messages == []
    Image.new("RGB", (16, 16), "white").save(tmp_path / "a" / "white.png")
    Image.fromarray(draw.integers(0, 20, (16, 16, 3), np.uint8)).save(tmp_path / "b" / "night.png")
    log_empty(load(str(tmp_path)))
    assert caplog.messages == [
        "1 of 26 images are of one colour, such as a/white.png",
        "1 of 26 images are too dark to see much, such as b/night.png",
    ]


def test_wrong_labels_of_training_and_validation_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    dataset = load("builtin:digits")
    assert _count(dataset) <= 2
    cache = dataset.train.cache
    wrong = np.random.default_rng(0).permutation(len(cache))[:180]
    cache.labels[wrong] = (cache.labels[wrong] + 1) % 10
    spoiled = load("builtin:digits")
    spoiled.train.cache.labels[:] = cache.labels
    assert 80 <= _count(spoiled) <= 200
    assert "labels may be wrong" in caplog.messages[-1]


def _count(dataset: Dataset) -> int:
    train, val = (split.read(np.arange(len(split))) for split in (dataset.train, dataset.val))
    features = likeness_to_some(np.concatenate([train, val]))
    found = count_wrong_labels(dataset, features[: len(train)], features[len(train) :])
    assert found
    assert found[1] == len(train) + len(val)
    return found[0]


def test_it_costs_a_training_hardly_any_time() -> None:
    dataset = load("builtin:digits")
    assert can_afford(dataset, float("inf"))
    assert can_afford(dataset, 600)
    assert not can_afford(dataset, 60)
