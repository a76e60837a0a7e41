from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, make_folder
from PIL import Image

from trainer.cli import run
from trainer.data import load
from trainer.data_checks.class_counts import log_class_counts

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_data_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "images", {"cat": 150, "dog": 50}, gray=True)
    (folder / "cat" / "0.png").write_bytes(b"")
    (folder / "cat" / "notes.txt").write_text("x")
    code, (summary,), _ = call("data", "inspect", str(folder), "--json", capsys=capsys)
    assert code == 0
    assert "cat/0.png" in json.dumps(summary)
    assert summary["contact_sheet"] == "contact-sheet-images.png"
    with Image.open("contact-sheet-images.png") as sheet:
        assert sheet.size[0] > 50
    assert run(["data", "inspect", "--dataset", str(folder)]) == 0
    assert "dog" in capsys.readouterr().out


def test_data_inspect_goes_on_where_a_fit_refuses_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "images", {"cat": 20, "dog": 20}, gray=True)
    for number in range(5):
        (folder / "cat" / f"{number}.png").write_text("a text")
    assert run(["data", "inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "5 rejected" in printed
    assert "  cat/4.png: not an image of a supported type" in printed
    assert "trainer fit refuses" not in printed
    (folder / "dog" / "0.png").write_text("a text")
    assert run(["data", "inspect", str(folder)]) == 0
    assert "trainer fit refuses so many" in capsys.readouterr().out
    assert run(["fit", str(folder)]) == 2
    assert "6 of 40 images cannot be used" in capsys.readouterr().err


def test_classes_without_validation_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "images", {"train/cat": 9, "train/dog": 9, "train/emu": 9, "val/cat": 1}, gray=True)
    assert run(["data", "inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    missing = "validation has no images of dog, emu: its figures say nothing about them"
    assert missing in printed
    log_class_counts(load(str(folder)))
    assert missing in caplog.messages
    assert "28 images of 12x12x1" in printed


def test_a_contact_sheet_that_cannot_be_written_is_a_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("file").touch()
    inspect = ("data", "inspect", "builtin:digits", "--sheet", "file/sheet.png")
    code, (summary,), _ = call(*inspect, "--json", capsys=capsys)
    assert (code, summary["contact_sheet"], len(summary["labels"])) == (0, None, 10)
    assert "file/sheet.png cannot be written: Not a directory" in caplog.messages[-1]
    assert "--sheet" in caplog.messages[-1]
    assert run(inspect) == 0
    assert "contact sheet" not in capsys.readouterr().out


def test_folders_named_in_other_scripts_have_names_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("照片", "花"):
        folder = make_folder(tmp_path / name, {"cat": 12, "dog": 12}, gray=True)
        assert call("data", "inspect", str(folder), "--json", capsys=capsys)[0] == 0
    assert len(list(Path().glob("contact-sheet-model-*.png"))) == 2
