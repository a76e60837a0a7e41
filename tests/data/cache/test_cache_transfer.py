from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.cache import transfer
from trainer.data.cache.entries import cache_dir, load_array
from trainer.data.cache.transfer import pack, unpack
from trainer.data.dataset import load
from trainer.data.sources.spec import open_source


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng([index, ord(name[0])]).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def never() -> np.ndarray:
    raise AssertionError("it is in the cache")


def test_images_and_features_arrive_although_the_files_have_other_times(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    spec = f"folder:{photos}"
    here = load(spec)
    key = {"features": 1, "images": here.train.cache.stored_fingerprint}  # as keys of features have it
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    load_array(key, lambda: features)
    load_array({"features": 1, "images": "of other images"}, lambda: features)
    entries = pack(open_source(spec))
    assert sorted(entry.of_images for entry in entries) == [False, True]

    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "there"))
    for file in photos.rglob("*.png"):
        os.utime(file, (1, 1))
    unpack(open_source(spec), entries)
    caplog.clear()
    there = load(spec)
    assert "reusing 24 decoded images" in caplog.text
    assert there.fingerprint == here.fingerprint
    assert np.array_equal(there.train.cache.read(there.train.indices), here.train.cache.read(here.train.indices))
    assert np.array_equal(load_array(key, never), features)


def test_existing_entries_stay(photos: Path) -> None:
    spec = f"folder:{photos}"
    load(spec)
    entries = pack(open_source(spec))
    (folder,) = cache_dir().glob("*-8x8x3")
    before = folder.stat().st_mtime_ns
    unpack(open_source(spec), entries)
    assert folder.stat().st_mtime_ns == before
    shutil.rmtree(folder)
    unpack(open_source(spec), entries)
    arrays = ("labels", "content_hashes", "perceptual_hashes", "near_duplicates")
    files = {file.name for file in folder.iterdir()}
    assert files == {"images.bin", "index.json", "names.json", *(f"{name}.npy" for name in arrays)}


def test_entries_that_are_too_large_are_not_sent(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(f"folder:{photos}")
    monkeypatch.setattr(transfer, "MAX_BYTES", 1000)
    caplog.set_level("INFO")
    assert pack(open_source(f"folder:{photos}")) == []
    assert "are too large to send" in caplog.text
