"""Data sets that are not what they seem, through the command line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from sample_images import image_folder
from tfds_datasets import prepare

from trainer.data import dataset
from trainer.data.cache.entries import prune
from trainer.data.cache.images import ImageCache, open_or_build

_QUICK = ("fit", "--epochs", "1", "--wandb", "disabled", "--no-save", "--model", "branched_cnn", "--augment", "none")
FIT = (*_QUICK, "--image-size", "16", "--json", "--dataset")
INSPECT = ("data", "inspect", "--json", "--dataset")


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def error_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that ends with exit code 2."""
    code, printed, err = call(*arguments, capsys=capsys)
    assert (code, printed) == (2, [])
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("command", [FIT, INSPECT])
@pytest.mark.parametrize("test", ["test", "validation", "test1"])
def test_flat_splits_are_no_classes(
    tmp_path: Path, command: tuple[str, ...], test: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image_folder(tmp_path / "flat", {"train": 12, test: 12})
    line = error_of(*command, str(folder), capsys=capsys)
    assert "are splits by their names" in line
    assert "train/<class>/<image>" in line
    assert "csv:FILE" in line


@pytest.mark.parametrize("command", [FIT, INSPECT])
def test_the_folder_of_class_folders_is_suggested(
    tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "data" / "photos", {"cat": 12, "dog": 12})
    for given in ("data", "data/photos/cat"):
        line = error_of(*command, str(tmp_path / given), capsys=capsys)
        assert line.endswith(f"did you mean folder:{tmp_path}/data/photos?")


def test_files_exchanged_with_equal_sizes_and_times_are_decoded_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after tar, rsync -t, or another image layer at the same path."""
    folder = image_folder(tmp_path / "photos", {"cat": 12, "dog": 12}, mode="L")
    cat, dog = (folder / name / "000.png" for name in ("cat", "dog"))
    dog.write_bytes(cat.read_bytes())
    _, (summary,), _ = call(*INSPECT, str(folder), capsys=capsys)
    assert "cat/000.png" in str(summary["findings"]["duplicates"])
    other = (folder / "cat" / "001.png").read_bytes()
    size, status = len(dog.read_bytes()), dog.stat()
    assert len(other) == size
    dog.write_bytes(other)
    os.utime(dog, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, (summary,), _ = call(*INSPECT, str(folder), capsys=capsys)
    assert "cat/001.png" in str(summary["findings"]["duplicates"])


def test_files_that_cannot_be_read_for_a_moment_are_named_and_read_the_next_time(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = image_folder(tmp_path / "photos", {"cat": 120, "dog": 120}, size=(8, 8), mode="L")
    open_file = os.open

    def failing(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("007.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_file(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        for _ in range(2):
            caplog.clear()
            _, (summary,), _ = call(*INSPECT, str(folder), capsys=capsys)
            assert [file["path"] for file in summary["rejected"]] == ["cat/007.png", "dog/007.png"]
            assert "skipped dog/007.png: cannot be read: Input/output error" in caplog.text
    _, (summary,), _ = call(*INSPECT, str(folder), capsys=capsys)
    assert summary["rejected"] == []
    (folder / "cat" / "007.png").write_bytes(b"no image")
    for _ in range(2):
        caplog.clear()
        call(*INSPECT, str(folder), capsys=capsys)
        assert "skipped cat/007.png: " in caplog.text


@pytest.mark.slow
def test_a_fit_trains_on_images_whose_cache_entry_was_pruned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = []

    def open_and_prune(*arguments: Any, **named: Any) -> ImageCache:
        cache = open_or_build(*arguments, **named)
        pruned.append(prune())
        return cache

    monkeypatch.setattr(dataset, "open_or_build", open_and_prune)
    code, _, err = call(*FIT, "builtin:digits", "--limit", "200", "--quantize", "none", capsys=capsys)
    assert code == 0, err
    assert pruned[0][0] == 1


@pytest.mark.slow
def test_tfds_splits_in_any_case_are_kept_and_other_splits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path, "animals", {"train": [0, 1, 2] * 4, "Validation": [0, 1], "Test": [2, 2, 1], "train_2": [1]})
    code, (summary,), _ = call(*INSPECT, "tfds:animals", "--data-dir", str(tmp_path), capsys=capsys)
    assert code == 0
    assert summary["counts"] == {"train": [4, 4, 4], "val": [1, 1, 0], "test": [0, 1, 2]}
    assert "train_2" in caplog.text
