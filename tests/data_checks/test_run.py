"""`trainer data inspect` reports every fault of a faulty folder, and none of clean data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from faulty_images import Inspected
from PIL import Image
from shape_images import arrow, folder_of

from trainer.cli import run


def test_every_fault_is_found(inspected: Inspected) -> None:
    found = inspected.findings
    groups = [[image["image"] for image in group] for group in found["duplicates"]]
    assert sorted(groups) == [
        ["train/four/002.png", "train/four/cropped.jpg"],
        ["train/four/same.png", "train/one/003.png"],
        ["train/one/001.png", "test/one/again.jpg"],
        ["train/zero/000.png", "train/zero/mirrored.png"],
    ]
    outliers = [image["image"] for image in found["poor"] if image["kind"] == "outlier"]
    assert outliers[0] == "train/four/placeholder.png"
    assert len(outliers) <= 5
    assert {image["image"]: image["kind"] for image in found["poor"] if image["kind"] != "outlier"} == {
        "train/zero/blank.png": "blank",
        "train/one/dark.png": "dark",
        "train/four/blurred.png": "blurred",
        "train/four/tiny.png": "tiny",
        "train/one/long.png": "oddly shaped",
    }
    wrong = {image["image"]: image["suggested"] for image in found["wrong_labels"]}
    assert {name: class_name for name, class_name in wrong.items() if "wrong" in name} == {
        "train/one/wrong10.png": "zero",
        "train/one/wrong11.png": "zero",
        "train/zero/wrong12.png": "four",
    }
    assert len(wrong) <= 6
    assert found["alike_classes"] == []


def test_clean_digits_have_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "inspect", "builtin:digits", "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr()
    assert (
        "in order: no near-duplicates, no label issues, no blank, dark, tiny or oddly shaped images, no confusable "
        "classes" in printed.out
    )
    assert "next: trainer fit --dataset builtin:digits" in printed.err


@pytest.mark.slow
def test_what_the_division_keeps_together_is_not_called_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies saved again stay in one split; mirrored ones cannot be known to the division and have another name."""
    folder = folder_of(tmp_path / "arrows", arrow, ("left", "right"), 30)
    for file in sorted(folder.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".webp"), lossless=True)
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file.with_name(f"{file.stem}-mirrored.png"))
    assert run(["data", "inspect", str(folder), "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "show the same" in printed
    assert "also in training" not in printed
    assert re.search(r"\d+ val images? (is|are) in training cropped, mirrored or edited", printed)
