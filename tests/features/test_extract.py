from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_images import image_folder, save_image

from trainer.data import Dataset, load
from trainer.features import extract
from trainer.features.extract import Features
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images whose features were computed, by a stand-in for the network: their mean colours."""
    counts: list[int] = []

    def mean_colours(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        counts.append(len(images))
        return images.astype(np.float32).mean((1, 2))

    monkeypatch.setattr(extract, "make_extractor", lambda model, layer: mean_colours)
    return counts


def features_of(dataset: Dataset, **view: Any) -> NDArray[np.float32]:
    return Features(EFFICIENTNET_LITE0, object(), lambda: None).of(dataset.train, **view)


def test_an_image_is_computed_once_whatever_data_set_names_it(
    tmp_path: Path, computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    folder = image_folder(tmp_path / "photos", {"train/cat": 9, "train/dog": 8, "val/cat": 1, "test/dog": 1})
    by_folder = load(str(folder))
    whole = features_of(by_folder)
    assert computed == [17]
    assert "reusing the features" not in caplog.text

    rows = [(str(file.relative_to(folder)), file.parent.name, file.parts[-3]) for file in folder.rglob("*.png")]
    rows.sort(key=lambda row: (row[2] != "train", row), reverse=True)
    kept = rows[:-4]  # in another order, without some of train; two are new
    new = [(f"new/{seed}.png", "cat", "train") for seed in (9001, 9002)]
    for name, _, _ in new:
        save_image(folder / name, seed=int(Path(name).stem))
    with (folder / "fixed.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "label", "split"), *new, *kept])
    by_table = load(f"csv:{folder / 'fixed.csv'}")
    again = features_of(by_table)
    assert computed == [17, 2]
    assert f"reusing the features of {len(again) - 2} of {len(again)} images" in caplog.text
    np.testing.assert_array_equal(again, by_table.train.read(np.arange(len(again))).astype(np.float32).mean((1, 2)))
    assert sum((row == again).all(1).any() for row in whole) == len(again) - 2

    features_of(by_table, mirrored=True)  # another view is not the same
    features_of(load(str(folder), image_size=(8, 8)))  # nor are other pixels
    assert computed[2:] == [len(again), 17]
