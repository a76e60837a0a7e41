from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from expected_answers import encoded

from trainer.artifact import store
from trainer.errors import InputError
from trainer.predict.files import find_images


def test_images_are_found_as_in_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "ä 日本/x.webp", "deep/er/y.heic", "camera", "deep/broken.gif"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(encoded())
    for name in (".hidden.png", ".folder/z.png", "@eaDir/z.png", "Thumbs.db", "notes.txt", "text"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(b"no image")
    Path("elsewhere").mkdir()
    Path("elsewhere/far.png").write_bytes(encoded())
    Path("in/link").symlink_to("../elsewhere")
    Path("in/loop").symlink_to(".")
    Path("in/gone.jpg").symlink_to("nowhere.jpg")  # named as a failure, not passed over
    names = [
        "a.png",
        "b.JPG",
        "camera",
        "deep/broken.gif",
        "deep/er/y.heic",
        "gone.jpg",
        "link/far.png",
        "ä 日本/x.webp",
    ]
    found = [Path("in", name) for name in names]
    assert find_images([Path("in")]) == find_images([Path("in/")]) == found
    # Files are taken as they are, and in the order in which they are named.
    assert find_images([Path("in/notes.txt"), Path("in/deep"), Path("no.jpg")]) == [
        Path("in/notes.txt"),
        Path("in/deep/broken.gif"),
        Path("in/deep/er/y.heic"),
        Path("no.jpg"),
    ]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=rf"{tmp_path} has no images \(\.jpg, .* are read\)"):
        find_images([tmp_path])


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    scan = os.scandir

    def refuse(folder: str) -> Any:  # root reads every folder
        if folder.endswith("inner"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=rf"{tmp_path}/inner cannot be read: Permission denied"):
        find_images([tmp_path])


def test_a_folder_is_answered_as_its_files(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.publish(tiny_artifact, "tiny")
    files = [tmp_path / "images" / name for name in ("1.png", "2.png", "in/3.png")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded())
    code, answers, _ = call("predict", "tiny", str(tmp_path / "images"), "--json", capsys=capsys)
    assert code == 0
    assert [answer["path"] for answer in answers] == [str(file) for file in files]
    assert answers == call("predict", "tiny", *map(str, files), "--json", capsys=capsys)[1]
    # Of many failures, the first are named.
    for number in range(30):
        (tmp_path / "images" / f"bad{number:02}.jpg").write_bytes(b"no image")
    code, answers, error = call("predict", "tiny", str(tmp_path / "images"), "--json", capsys=capsys)
    assert (code, len(answers), error.count("\n")) == (2, 3, 1)
    assert error.startswith(f"error: {tmp_path}/images/bad00.jpg: not an image")
    assert error.endswith("; and 10 more images\n")
