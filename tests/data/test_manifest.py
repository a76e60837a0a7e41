from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sample_images import picture_folder

from trainer.data import load
from trainer.data.manifest import FILE, UNKNOWN, DataIdentity, read
from trainer.data.splits import TEST, TRAIN, VAL
from trainer.errors import ArtifactError


def test_every_picture_has_its_split_and_class(tmp_path: Path) -> None:
    dataset = load(str(picture_folder(tmp_path, {"Ätna 日本": 30, "b": 30}, size=(8, 8))))
    identity = DataIdentity.of(dataset)
    assert identity.class_names == ("b", "Ätna 日本")
    assert (identity.count(TRAIN), identity.count(VAL), identity.count(TEST)) == (
        len(dataset.train),
        len(dataset.val),
        len(dataset.test),
    )
    for index, split in enumerate((dataset.train, dataset.val, dataset.test)):
        assert (identity.splits_of(split.contents) == index).all()
        np.testing.assert_array_equal(identity.labels[identity.splits == index], split.labels)
    assert identity.splits_of(np.array([1, 2**64 - 1], np.uint64)).tolist() == [UNKNOWN, UNKNOWN]
    assert len(identity.tested) == 0  # no answers are known


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    dataset = load("builtin:digits", limit=100)
    assert read(tmp_path) is None
    answers = dataset.test.labels[::-1].astype(np.int64)
    DataIdentity.of(dataset, answers).save(tmp_path)
    identity = read(tmp_path)
    assert identity is not None
    assert identity.count(TRAIN) == 100  # what the limit leaves out is never seen
    np.testing.assert_array_equal(identity.answers[identity.tested], answers)
    np.testing.assert_array_equal(identity.contents[identity.tested], dataset.test.contents)
    assert identity.class_names == tuple("0123456789")
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=rf"{FILE}: cannot be read"):
        read(tmp_path)


def test_a_picture_in_train_and_in_test_counts_as_learned_from(tmp_path: Path) -> None:
    picture_folder(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 2, "test/b": 2}, size=(8, 8))
    shutil.copy(tmp_path / "train/b/000.png", tmp_path / "test/b/x.png")
    shutil.copy(tmp_path / "val/a/000.png", tmp_path / "test/b/y.png")
    dataset = load(str(tmp_path))
    identity = DataIdentity.of(dataset, np.zeros(4, np.int64))
    assert identity.splits_of(dataset.test.contents).tolist() == [TEST, TEST, TRAIN, VAL]
    assert identity.count(TEST) == 4
    assert identity.contents[identity.tested].tolist() == dataset.test.contents[:2].tolist()
