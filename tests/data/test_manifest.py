from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sample_images import image_folder

from trainer.data import load
from trainer.data.manifest import FILE, UNKNOWN, DataManifest, read_manifest
from trainer.data.splits import TEST, TRAIN, VAL
from trainer.errors import ArtifactError


def test_every_image_has_its_split_and_class(tmp_path: Path) -> None:
    dataset = load(str(image_folder(tmp_path, {"Ätna 日本": 30, "b": 30}, size=(8, 8))))
    manifest = DataManifest.of(dataset)
    assert manifest.class_names == ("b", "Ätna 日本")
    assert (manifest.count(TRAIN), manifest.count(VAL), manifest.count(TEST)) == (
        len(dataset.train),
        len(dataset.val),
        len(dataset.test),
    )
    for index, split in enumerate((dataset.train, dataset.val, dataset.test)):
        assert (manifest.splits_of(split.content_hashes) == index).all()
        np.testing.assert_array_equal(manifest.labels[manifest.splits == index], split.labels)
    assert manifest.splits_of(np.array([1, 2**64 - 1], np.uint64)).tolist() == [UNKNOWN, UNKNOWN]
    assert len(manifest.held_out_rows) == 0  # without predictions


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    dataset = load("builtin:digits", limit=100)
    assert read_manifest(tmp_path) is None
    held_out = (dataset.val, dataset.test)
    predictions = [split.labels[::-1].astype(np.int64) for split in held_out]
    DataManifest.of(dataset, predictions).save(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.count(TRAIN) == 100  # images beyond the limit are never seen
    rows = manifest.held_out_rows
    np.testing.assert_array_equal(manifest.predictions[rows], np.concatenate(predictions))
    hashes = np.concatenate([split.content_hashes for split in held_out])
    np.testing.assert_array_equal(manifest.content_hashes[rows], hashes)
    assert manifest.class_names == tuple("0123456789")
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=rf"{FILE}: cannot be read"):
        read_manifest(tmp_path)


def test_an_image_in_train_and_test_counts_as_a_training_image(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 2, "test/b": 2}, size=(8, 8))
    shutil.copy(tmp_path / "train/b/000.png", tmp_path / "test/b/x.png")
    shutil.copy(tmp_path / "val/a/000.png", tmp_path / "test/b/y.png")
    dataset = load(str(tmp_path))
    manifest = DataManifest.of(dataset, (np.zeros(2, np.int64), np.zeros(4, np.int64)))
    assert manifest.splits_of(dataset.test.content_hashes).tolist() == [TEST, TEST, TRAIN, VAL]
    assert manifest.count(TEST) == 4
    held_out = np.concatenate([dataset.val.content_hashes, dataset.test.content_hashes[[0, 1, 3]]])  # y is in both
    assert manifest.content_hashes[manifest.held_out_rows].tolist() == held_out.tolist()


def test_training_images_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    old = load(str(image_folder(tmp_path / "old", {"a": 30, "b": 30}, size=(8, 8))))
    earlier = DataManifest.of(old)
    new_folder = image_folder(tmp_path / "new", {"a": 0, "b": 0, "c": 20}, size=(8, 8))
    shutil.copytree(tmp_path / "old/b", new_folder / "b")
    new = load(str(new_folder), trained=earlier.trained)
    held_out = (new.val, new.test)
    manifest = DataManifest.of(new, [split.labels.astype(np.int64) for split in held_out], earlier)
    assert set(manifest.trained) == set(new.train.content_hashes) | set(old.train.content_hashes)
    gone = old.train.content_hashes[old.train.labels == 0]
    assert (manifest.splits_of(gone) == TRAIN).all()
    assert (manifest.labels[np.isin(manifest.content_hashes, gone)] == UNKNOWN).all()
    assert len(manifest.content_hashes) == len(np.unique(manifest.content_hashes))
    assert len(manifest.held_out_rows) == len(new.val) + len(new.test)
